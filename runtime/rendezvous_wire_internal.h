#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"

#pragma GCC visibility push(hidden)

// What workers and the rendezvous say to each other. All numbers are little-endian.
//
//   worker:     preamble, i32 rank, i32 size, u32 incarnation       (the hello, 20 bytes)
//   rendezvous: preamble, then `done` with i32 served_by, or `refused` or `lost`
//   then, one request at a time, a frame each way:
//     put     u16 name length, name, value       -> done
//     get     u64 timeout in ns, name            -> done with the value
//     fence   u64 timeout in ns                  -> done
//     goodbye                                    -> (no answer)
//     failed  reason                             -> lost
//
//   preamble = "SLIP", u32 version;  frame = u8 kind, u32 length, payload.
//
// The preamble is the same in every version, so that two versions can name each other. `refused`
// fails one request; `lost` fails the world, comes once, unasked for, and is the last frame.
// Whatever a decoder does not accept is Error(bad_data).
namespace slip::rendezvous_wire {

constexpr std::uint32_t version = 1;
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
  done = 16,
  refused = 17,
  lost = 18,
};

struct Hello {
  std::int32_t rank = 0;
  std::int32_t size = 0;
  std::uint32_t incarnation = 1;
};

struct Request {
  Kind kind;
  Duration timeout{0};  // get, fence
  std::string_view name{};
  std::string_view value{};  // put; failed: the reason
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
/// What follows the preamble of a hello of this version.
Hello decode_hello(std::string_view bytes);

std::string encode(const Request& request);
/// `refused` or `lost` from a failure, `done` from a value.
std::string encode(const Answer& answer);
std::string encode_served_by(int rank);

/// The frame that `bytes` begin with, or nothing while more is to come.
std::optional<Frame> first_frame(std::string_view bytes);
Request decode_request(const Frame& frame);
Answer decode_answer(const Frame& frame);
int decode_served_by(std::string_view value);

}  // namespace slip::rendezvous_wire

#pragma GCC visibility pop
