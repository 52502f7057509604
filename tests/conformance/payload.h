#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "slipstream/base/random.h"

/// Payloads of which every word says which it is and of which round.
namespace slip::testing {

inline std::uint64_t pattern(std::uint64_t round, std::size_t index) { return round << 32 | index; }

inline void fill(void* payload, std::size_t words, std::uint64_t round) {
  for (std::size_t i = 0; i < words; ++i) {
    const std::uint64_t value = pattern(round, i);
    std::memcpy(static_cast<std::byte*>(payload) + sizeof value * i, &value, sizeof value);
  }
}

/// Looks where a put that is still under way would show: at the end, at the beginning, anywhere.
inline bool is_whole(const std::byte* payload, std::size_t words, std::uint64_t round) {
  const auto right = [&](std::size_t index) {
    std::uint64_t found = 0;
    std::memcpy(&found, payload + sizeof found * index, sizeof found);
    return found == pattern(round, index);
  };
  Random random(round);
  bool all = right(words - 1) && right(0);
  for (int i = 0; i < 16; ++i) all = all && right(random.below(words));
  return all;
}

/// How many payloads tests of order send.
inline std::uint64_t order_rounds() {
  const char* text = std::getenv("SLIP_TEST_ORDER_ROUNDS");
  return text == nullptr ? 10'000 : std::strtoull(text, nullptr, 10);
}

}  // namespace slip::testing
