#pragma once

#include <cstddef>

#pragma GCC visibility push(hidden)

namespace slip {

/// Bytes of a cache line. What different workers write never shares one.
constexpr std::size_t line = 64;

constexpr std::size_t divide_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit; }
constexpr std::size_t round_up(std::size_t n, std::size_t unit = line) {
  return divide_up(n, unit) * unit;
}

}  // namespace slip

#pragma GCC visibility pop
