#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"

#pragma GCC visibility push(hidden)

// What workers and the rendezvous say to each other. All numbers are little-endian.
//
//   worker:     preamble, i32 rank, i32 size, u32 incarnation       (the hello, 20 bytes)
//   rendezvous: preamble, then `challenge` with its nonce
//   worker:     `proof` with a nonce of its own and its proof that it knows the secret
//   rendezvous: `done` with i32 served_by and a proof in return, or `refused` or `lost`
//   then, one request at a time, a frame each way:
//     put     u16 name length, name, value                        -> done
//     get     u64 timeout in ns, name                             -> done with the value
//     gather  u64 timeout in ns, u16 name length, name, value     -> done with all values
//     fence   u64 timeout in ns                                   -> done
//     goodbye                                                     -> (no answer)
//     failed  reason                                              -> lost
//
//   preamble = "SLIP", u32 version;  frame = u8 kind, u32 length, payload.
//
// The hello is the same in every version, so that two versions can name each other. `refused`
// fails one request; `lost` fails the world, comes once, unasked for, and is the last frame.
// Whatever a decoder does not accept is Error(bad_data).
namespace slip::rendezvous_wire {

constexpr std::uint32_t version = 2;
constexpr std::size_t preamble_bytes = 8;
constexpr std::size_t hello_bytes = preamble_bytes + 12;
constexpr std::size_t max_name_bytes = 256;
constexpr std::size_t max_value_bytes = std::size_t{16} << 20;
constexpr std::size_t max_reason_bytes = 1024;

enum class Kind : std::uint8_t {
  put = 1,
  get = 2,
  fence = 3,
  goodbye = 4,
  failed = 5,
  proof = 6,
  gather = 7,
  done = 16,
  refused = 17,
  lost = 18,
  challenge = 19,
};

struct Hello {
  std::int32_t rank = 0;
  std::int32_t size = 0;
  std::uint32_t incarnation = 1;
};

struct Request {
  Kind kind;
  Duration timeout{0};  // get, gather, fence
  std::string_view name{};
  std::string_view value{};  // put, gather; failed: the reason
};

struct Answer {
  Kind kind;
  std::string_view value{};  // done
  Status status{};           // refused, lost
};

struct Frame {
  Kind kind;
  std::string_view payload;
  std::size_t bytes;  // with its header
};

std::string encode_preamble();
/// The version of whoever sent it. `bytes` holds preamble_bytes.
std::uint32_t decode_preamble(std::string_view bytes);

std::string encode(const Hello& hello);
/// What follows the preamble of a hello, of any version.
Hello decode_hello(std::string_view bytes);

std::string encode(const Request& request);
/// `refused` or `lost` from a failure, `done` from a value.
std::string encode(const Answer& answer);

/// A worker's answer to a challenge, and what the rendezvous answers to that if it is right.
struct Proof {
  std::string nonce;  // the worker's
  std::string proof;
};
struct Welcome {
  std::int32_t served_by = -1;
  std::string proof;
};
/// What worker and rendezvous prove their knowledge of the secret by. `hello` is as encoded.
std::string worker_proof(std::string_view secret, std::string_view challenge,
                         std::string_view nonce, std::string_view hello);
std::string rendezvous_proof(std::string_view secret, std::string_view challenge,
                             std::string_view nonce);
std::string encode_challenge(std::string_view nonce);
std::string encode(const Proof& proof);
std::string encode(const Welcome& welcome);
std::string decode_challenge(const Frame& frame);
Proof decode_proof(const Frame& frame);
Welcome decode_welcome(std::string_view value);

/// The values of a gather, in the order of ranks.
std::string encode_values(const std::vector<std::string>& values);
std::vector<std::string> decode_values(std::string_view value);

/// The frame that `bytes` begin with, or nothing while more is to come.
std::optional<Frame> first_frame(std::string_view bytes);
Request decode_request(const Frame& frame);
Answer decode_answer(const Frame& frame);

}  // namespace slip::rendezvous_wire

#pragma GCC visibility pop
