#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// SWIFT (Bornstein, Rabbani, Wang, Bedi, Huang, ICLR'23): wait-free. A worker sends its model to
/// its neighbours while it computes, and averages with the newest model of each that has come,
/// again with an old one where none has.
struct Swift {
  static constexpr std::string_view name = "swift";
  static constexpr std::string_view summary =
      "wait-free averages with the neighbours' newest models (SWIFT, ICLR'23)";

  enum class Variant {
    strong,  // models leave before the gradient is computed, and one that waits gives way to a
             // newer
    paper,   // its program: they leave after the gradient, in every iteration, and queue up; the
             // run's weights give way to the paper's (CCS)
  };

  Variant variant = Variant::strong;
  int local_steps = 1;  // iterations from one average to the next

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool tolerates_loss() const { return true; }
  bool free_running() const { return true; }
};

/// The weights that worker `rank` gives to its neighbours (in their order) by the paper's rule: the
/// workers of the largest degree give every edge 1 / (degree + 1); those of the next share what
/// these have left among their other edges and themselves; neighbours of one degree take the
/// smaller of their two wishes. The graph is symmetric; so are the weights.
std::vector<double> swift_weights(const Graph& graph, int rank);

}  // namespace slip
