#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// D2 (Tang et al., ICML'18): x <- W (2 x - x' + u - u'), where u is the local step and ' the
/// iteration before: gossip whose convergence does not depend on how different the workers' data
/// are. The eigenvalues of W must be above -1/3, where those of a ring with Metropolis weights are
/// at the brink. Lost messages do not end a run, but may make it diverge.
struct D2 {
  static constexpr std::string_view name = "d2";
  static constexpr std::string_view summary = "gossip corrected for different data (D2, ICML'18)";

  /// Averages with (W + I) / 2, which converges on every graph (exact diffusion); else with W, the
  /// paper's.
  bool lazy = true;

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool tolerates_loss() const { return true; }
};

}  // namespace slip
