#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "slipstream/runtime/world.h"

namespace slip {

/// How a partial all-reduce moves its bytes; see PartialAllReduce.
enum class Algorithm : std::uint8_t {
  automatic,  // what the cost model says
  one_shot,
  two_shot,
  hierarchical,
  nccl,  // by name alone
};

/// "automatic", "one-shot", ...
std::string_view to_string(Algorithm algorithm);

/// What the time of an operation depends on besides its size.
struct GroupShape {
  int members = 1;
  int hosts = 1;     // that they are on
  int per_host = 1;  // members on the host that has most
  int rails = 1;     // NICs for which every host has a leader of its own among them

  bool operator==(const GroupShape&) const = default;
};

/// A path between two workers.
struct PathCost {
  double latency = 0;    // seconds until a word is seen
  double bandwidth = 0;  // bytes/s in one direction
};

/// What an operation takes, from a few constants. Immutable values; every member of a group must
/// have the same ones, for all must choose alike.
struct CostModel {
  /// Between two workers of one host, and out of one of a host's NICs, which its workers share. The
  /// defaults were measured with `slip perf partial-all-reduce` (two cores of one package, 8 B and
  /// 2 MiB) and are those of a 25 Gbit/s network.
  PathCost inner{0.2e-6, 50e9};
  PathCost outer{5e-6, 3e9};
  /// Bytes of input that a worker averages in a second, out of other cores' caches: where one shot
  /// and two take as long as each other.
  double arithmetic = 15e9;

  /// Seconds that an all-reduce of `bytes` takes; infinity for nccl, of which nothing is known.
  double seconds(Algorithm algorithm, std::size_t bytes, const GroupShape& shape) const;

  /// The constants in one line.
  std::string to_text() const;
};

/// The defaults, with the links that the world models in place of the paths; in virtual time
/// arithmetic takes none.
CostModel cost_model(const World& world);

}  // namespace slip
