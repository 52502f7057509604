#pragma once

#include <cstdint>

namespace slip {

using Iteration = std::uint64_t;

/// A word is what announces a write: `incarnation:16 | iteration:48`. Incarnations start at 1, so
/// memory that was never written (zero) is no word of anybody's.
using Word = std::uint64_t;

constexpr int iteration_bits = 48;
constexpr Iteration max_iteration = (Iteration{1} << iteration_bits) - 1;

constexpr Word make_word(std::uint16_t incarnation, Iteration iteration) {
  return (Word{incarnation} << iteration_bits) | (iteration & max_iteration);
}

constexpr std::uint16_t incarnation_of(Word word) {
  return static_cast<std::uint16_t>(word >> iteration_bits);
}

constexpr Iteration iteration_of(Word word) { return word & max_iteration; }

}  // namespace slip
