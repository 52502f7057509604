#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "slipstream/base/word.h"
#include "slipstream/transport/doorbell.h"

#pragma GCC visibility push(hidden)

namespace slip::ucx {

/// What active messages are about. They come from a peer, so every field is checked where it is
/// used.
enum class Kind : std::uint32_t {
  hello,     // payload: the sender's worker address
  beat,      // the sender's progress thread is alive
  attach,    // the sender will put into `region`: asks for `attached` with the same `number`
  attached,  // `word` is not 0 if the region is there
  detach,    // the sender has put into `region` for the last time
  write,     // payload into `region` at `offset`
  signal,    // the same, and then `word` at `word_offset`
  drain,     // asks for `drained` with the same `number`
  drained,   // everything that was sent before `drain` has taken effect
  nudge,     // a word for the services of the progress thread has been stored
};

struct Message {
  Kind kind;
  std::int32_t rank;   // the sender's
  std::uint64_t life;  // the sender's
  std::uint64_t region;
  union {
    std::uint64_t offset;
    std::uint64_t number;
  };
  std::uint64_t word_offset;
  Word word;
};
static_assert(std::is_trivially_copyable_v<Message> && sizeof(Message) == 48);

/// What a Region's key holds.
struct RegionKey {
  std::uint64_t region = 0;   // number in its owner's table
  std::uint64_t address = 0;  // in the owner's process
  std::uint64_t bytes = 0;
  Bell bell = Bell::worker;
  std::uint64_t life = 0;      // the owner's
  std::uint64_t doorbell = 0;  // its address in the owner's process
  std::string rkey;            // as UCX packs it
  std::string doorbell_rkey;   // empty: nobody else can reach it
  std::string address_of_worker;
};

std::string pack(const RegionKey& key);
/// Error(bad_data) names `peer`, who published it.
RegionKey unpack(std::string_view text, int peer);

}  // namespace slip::ucx

#pragma GCC visibility pop
