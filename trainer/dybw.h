#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// cb-DyBW: consensus-based SGD with dynamic backup workers (Xiong, Yan, Singh, Li, 2021). An
/// iteration lasts until the DTUR rule (collectives/dtur.h) ends it, and those of a worker's
/// neighbours that have not finished by then are its backup workers. Who has finished averages with
/// Metropolis weights on the graph of those who have, so the mean of all models is preserved in
/// every iteration. The rule's tree is the path 0-1-2-... where the graph has it, else a spanning
/// tree of short paths: slow workers are best at its leaves.
struct Dybw {
  static constexpr std::string_view name = "dybw";
  static constexpr std::string_view summary = "dynamic backup workers (cb-DyBW, 2021)";

  enum class Threshold {
    dtur,
    full,  // the baseline cb-Full: every worker waits for all of its neighbours
  };
  /// What becomes of a gradient that is not finished when its iteration ends.
  enum class Policy {
    abort,  // it is dropped, and its worker begins the next iteration with the others
    carry,  // its worker goes on with it, and takes part in a later iteration
  };

  Threshold threshold = Threshold::dtur;
  Policy policy = Policy::carry;
  double slack = 0;  // an iteration that may end after T goes on for up to slack x T
  double floor = 0;  // the share of all workers that finish in every iteration at least

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
};

/// The edges of the tree that DTUR works on; the graph is symmetric and connected.
std::vector<std::pair<int, int>> dtur_tree(const Graph& graph);

}  // namespace slip
