#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "slipstream/base/word.h"
#include "slipstream/transport/doorbell.h"
#include "slipstream/transport/verbs/port_internal.h"

#pragma GCC visibility push(hidden)

/// Everything that workers send each other. It comes from a peer, so every field is checked where
/// it is used. Raised when any of it changes: `wire_version`.
namespace slip::verbs {

constexpr std::uint32_t wire_version = 2;

/// How a worker's knocking queue pair is reached (see connector_internal.h), and which life of it.
struct Address {
  std::uint64_t life = 0;  // drawn anew by each transport that is made
  GidBytes gid{};
  std::uint32_t knock_qp = 0;
  std::uint16_t lid = 0;
  std::uint16_t mtu = 0;  // bytes
  Link link = Link::infiniband;
  std::array<std::uint8_t, 7> unused{};

  Place place() const { return {link, lid, gid}; }
};
static_assert(std::is_trivially_copyable_v<Address> && sizeof(Address) == 40);

/// What a Region's key holds.
struct RegionKey {
  static constexpr std::uint64_t expected = 0x736c69702d767262;  // "slip-vrb"
  std::uint64_t magic = expected;
  std::uint32_t version = wire_version;
  Bell bell = Bell::worker;
  std::uint64_t region = 0;   // number in its owner's table
  std::uint64_t address = 0;  // in the owner's process
  std::uint64_t bytes = 0;
  std::uint32_t rkey = 0;
  std::uint32_t unused = 0;
  Address owner;
};
static_assert(std::is_trivially_copyable_v<RegionKey> && sizeof(RegionKey) == 88);

std::string pack(const RegionKey& key);
/// Error names `peer`, who published it: bad_data, or peer_mismatch of the wire's version.
RegionKey unpack(std::string_view text, int peer);

/// What sets up a channel, as an unreliable datagram: `ask` is sent again until an `answer` comes,
/// and both say all that the other side needs to connect to the sender's queue pair.
struct Knock {
  enum class Kind : std::uint32_t { ask = 1, answer = 2 };
  static constexpr std::uint64_t expected = 0x736c69702d6b6e6b;  // "slip-knk"
  std::uint64_t magic = expected;
  std::uint32_t version = wire_version;
  Kind kind = Kind::ask;
  std::uint64_t to = 0;  // the receiver's life
  Address from;
  std::int32_t rank = -1;     // the sender's
  std::uint32_t qp = 0;       // the number of its queue pair for the receiver
  std::uint32_t packet = 0;   // number of its first packet
  std::uint32_t window = 0;   // of messages to it: cells in
  std::uint64_t mailbox = 0;  // the receiver's mailbox there
  std::uint32_t mailbox_key = 0;
  std::uint32_t lands_in_order = 0;  // its device promises that for writes to it
};
static_assert(std::is_trivially_copyable_v<Knock> && sizeof(Knock) == 96);

/// What messages are about.
enum class Kind : std::uint32_t {
  beat,      // the sender's progress thread is alive
  attach,    // the sender will put into `region`: asks for `attached` with the same `number`
  attached,  // `word` is not 0 if the region is there
  detach,    // the sender has put into `region` for the last time
  signal,    // `bytes` of payload into `region` at `offset`, and then `word` at `word_offset`
  drain,     // asks for `drained` with the same `number`
  drained,   // everything that was sent before `drain` has taken effect
  awake,     // the sender's worker polls its memory: words that land for it need no notice
  asleep,    // it does so no longer: asks for `noted`
  noted,     // every word that has landed without notice was there before
  bye,       // the sender leaves, and waits for nothing any more
};

/// In a cell of a mailbox, its payload behind it.
struct Message {
  Kind kind;
  std::uint32_t bytes;
  std::uint64_t region;
  union {
    std::uint64_t offset;
    std::uint64_t number;
  };
  std::uint64_t word_offset;
  Word word;
};
static_assert(std::is_trivially_copyable_v<Message> && sizeof(Message) == 40);

constexpr std::size_t cell_bytes = 256;
/// Payloads of so many bytes travel with their word.
constexpr std::size_t small_bytes = cell_bytes - sizeof(Message);

}  // namespace slip::verbs

#pragma GCC visibility pop
