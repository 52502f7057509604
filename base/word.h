#pragma once

#include <cstdint>

namespace slip {

/// Counted from 0, in each worker.
using Iteration = std::uint64_t;

/// A word is what announces a write: `incarnation:16 | iteration:48`. Incarnations start at 1, so
/// memory that was never written (zero) is no word of anybody's.
using Word = std::uint64_t;

/// Of a word; the rest is the incarnation.
constexpr int iteration_bits = 48;
/// The largest that a word holds.
constexpr Iteration max_iteration = (Iteration{1} << iteration_bits) - 1;

/// A word out of its parts; of `iteration` only what fits.
constexpr Word make_word(std::uint16_t incarnation, Iteration iteration) {
  return (Word{incarnation} << iteration_bits) | (iteration & max_iteration);
}

/// The life of the rank that wrote it.
constexpr std::uint16_t incarnation_of(Word word) {
  return static_cast<std::uint16_t>(word >> iteration_bits);
}

/// The iteration that it announces.
constexpr Iteration iteration_of(Word word) { return word & max_iteration; }

}  // namespace slip
