#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/runtime/neighbourhood.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// All workers but `rank`, as neighbours in both directions.
inline Neighbourhood everybody(int rank, int workers) {
  Neighbourhood all;
  for (int peer = 0; peer < workers; ++peer) {
    if (peer != rank) all.in.push_back({peer, rank - (rank > peer ? 1 : 0)});
  }
  all.out = all.in;
  return all;
}

/// `wanted` distinct numbers below `peers`, or all where there are fewer, uniform and in random
/// order.
inline std::vector<std::size_t> random_peers(std::size_t peers, int wanted, Random& random) {
  std::vector<std::size_t> all(peers);
  std::iota(all.begin(), all.end(), std::size_t{0});
  const std::size_t taken = std::min(peers, static_cast<std::size_t>(wanted));
  for (std::size_t i = 0; i < taken; ++i) std::swap(all[i], all[i + random.below(peers - i)]);
  all.resize(taken);
  return all;
}

}  // namespace slip

#pragma GCC visibility pop
