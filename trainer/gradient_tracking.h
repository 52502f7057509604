#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// Gradient tracking (Lorenzo and Scutari, 2016; Nedic, Olshevsky, Shi, 2017) and Momentum Tracking
/// (Takezawa et al., 2022): beside its model a worker averages an estimate of the mean update, so
/// convergence does not depend on how different the workers' data are. Two vectors for each
/// neighbour and iteration.
struct GradientTracking {
  static constexpr std::string_view name = "gradient_tracking";
  static constexpr std::string_view summary = "gossip of models and of their mean update";

  enum class Track {
    updates,   // of the local step, whatever it is
    momentum,  // the momentum itself, with that of the run
  };

  Track track = Track::updates;

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool tolerates_loss() const { return true; }
};

}  // namespace slip
