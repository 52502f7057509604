#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>

#include "slipstream/base/portable_math.h"

namespace slip {

/// SplitMix64's finaliser: a bijection on 64 bits that scatters every input bit
/// (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
constexpr std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// A key from several numbers, e.g. `key({seed, rank, iteration})`: draws that are a pure function
/// of it are the same for every protocol, transport and machine.
constexpr std::uint64_t key(std::initializer_list<std::uint64_t> parts) {
  std::uint64_t k = 0;
  for (const std::uint64_t part : parts) k = mix(k ^ part);
  return k;
}

/// Our own generator: the standard library's distributions differ between implementations, and one
/// seed must give one history everywhere. Satisfies UniformRandomBitGenerator.
class Random {
 public:
  using result_type = std::uint64_t;

  explicit constexpr Random(std::uint64_t seed) : state_(mix(seed)) {}

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type{0}; }
  constexpr result_type operator()() {
    state_ += 0x9e3779b97f4a7c15u;
    return mix(state_);
  }

  /// Uniform in [0, 1).
  constexpr double uniform() { return static_cast<double>((*this)() >> 11) * 0x1p-53; }
  constexpr double uniform(double low, double high) { return low + (high - low) * uniform(); }

  /// Uniform in [0, n), n > 0. The bias is below 2^-64 n, far under what any test can see.
  constexpr std::uint64_t below(std::uint64_t n) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>((*this)()) * n) >> 64);
  }

  /// Standard normal (Box-Muller; one of the pair is thrown away to stay stateless).
  double normal() {
    const double u = 1.0 - uniform();
    return std::sqrt(-2.0 * portable::log(u)) * portable::cos_pi(2 * uniform());
  }

 private:
  std::uint64_t state_;
};

/// Fisher-Yates with our own generator: the same order on every machine.
template <class Range>
void shuffle(Range& range, Random& random) {
  for (std::size_t i = range.size(); i > 1; --i) {
    using std::swap;
    swap(range[i - 1], range[random.below(i)]);
  }
}

}  // namespace slip
