#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// RelaySGD (Vogels et al., NeurIPS'21, Algorithm 1): after its own step a worker replaces its
/// model by the mean of one model of every worker, which come along the paths of a tree, a round
/// later for every edge but the first. Bounds of convergence do not depend on how different the
/// workers' data are. A resumed run begins without messages, like the first. The trees are those of
/// `relay_trees` (trainer/relay_trees.h).
struct RelaySgd {
  static constexpr std::string_view name = "relay_sgd";
  static constexpr std::string_view summary = "means relayed along a tree (RelaySGD, NeurIPS'21)";

  /// What stands for the models that are missing in a sum: in the first rounds, and where messages
  /// were lost.
  enum class Normalise {
    counts,   // nothing: the mean of those that are here
    initial,  // the worker's first model
    latest,   // the worker's last average
    own,      // the worker's model of this round
  };
  enum class Schedule {
    same_round,  // a round waits for its messages (the paper's)
    overlap,     // messages travel while the next gradient is computed, and are a round older
  };
  enum class Payload {
    models,   // RelaySum/Model
    updates,  // RelaySum/Grad: by how much the models change; what is lost stays lost
  };

  Normalise normalise = Normalise::latest;
  Schedule schedule = Schedule::same_round;
  /// Multiplies the learning rate by 1 + the mean delay of a model, which older copies of it take
  /// away again. For step(gradient).
  bool correct_lr = false;
  Payload relay = Payload::models;
  /// Not in the paper: who is late is not waited for while its last message is no more than so many
  /// rounds late. Of models a late message is one that is older, and weighs as much.
  int staleness = 0;

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool tolerates_loss() const { return true; }
};

/// The mean age, in rounds, of the models in a worker's average, over all ordered pairs of workers.
double mean_delay(const Graph& graph, RelaySgd::Schedule schedule);

}  // namespace slip
