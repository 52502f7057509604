#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// Synchronous data-parallel SGD: every iteration all workers average their gradients and take the
/// same step. The baseline. With the user's own `apply`, parameters are averaged after it.
struct AllReduceSgd {
  static constexpr std::string_view name = "all_reduce";
  static constexpr std::string_view summary =
      "synchronous SGD: gradients averaged over all workers";

  Algorithm algorithm = Algorithm::automatic;  // how they are averaged
  Wire wire = Wire::exact;                     // what a transport carries of it

  Options describe();
  void validate(const RunShape&) const {}
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
};

}  // namespace slip
