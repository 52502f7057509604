#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "slipstream/runtime/tokens.h"
#include "slipstream/runtime/update_queue.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// Averaging with neighbours in lockstep: in every round a worker sends a vector and replaces it by
/// a weighted mean of its own and what it gets. What synchronous gossip protocols have in common.
/// A message that `--drop` loses is left out, and the other weights grow to make up for it. Belongs
/// to one thread.
class Gossip {
 public:
  /// Made by all workers with the same name and `count` elements; waits for the neighbours.
  /// `neighbourhood` is this worker's in the graph whose edges are used.
  Gossip(const Run& run, std::string_view name, const Neighbourhood& neighbourhood,
         std::size_t count, Iteration rounds_per_iteration = 1);

  /// Bytes of registered memory at a worker with that many in-neighbours.
  static std::size_t memory(std::size_t in_neighbours, std::size_t count, Dtype dtype);

  /// A round with every neighbour; `weights` are by in-neighbour.
  Status average(VectorView vector, const MixingRow& weights);
  /// A round with one peer on each side, each by its index; the mean of both vectors.
  Status average(VectorView vector, std::size_t out, std::size_t in);

  /// Nobody waits for this worker any more.
  Status finish() { return tokens_.announce_finished(); }

 private:
  Status enter();
  Status send(std::size_t out, VectorView vector);
  Status receive(std::size_t first, std::size_t end);
  void add(std::size_t in, double weight);
  Status reduce(VectorView vector, double own);

  const Run& run_;
  const std::vector<Neighbour> in_;
  const std::size_t out_count_;
  const std::size_t count_;
  const Iteration rounds_per_iteration_;
  UpdateQueue queue_;
  Tokens tokens_;
  std::optional<Iteration> round_;
  // Of the round at hand; they keep their capacity. The worker's own is the first.
  std::vector<ConstVectorView> inputs_;
  std::vector<double> weights_;
};

/// A protocol whose iterations are a local step and an average in lockstep.
class GossipProtocol : public Protocol {
 public:
  /// `count` elements are averaged at a time.
  GossipProtocol(const Run& run, const Neighbourhood& neighbourhood, std::size_t count,
                 Iteration rounds_per_iteration = 1)
      : run_(run), gossip_(run, run.name + "/gossip", neighbourhood, count, rounds_per_iteration) {}

  Status enter(Iteration) final { return {}; }
  Status step(Iteration k, const GradientStep& gradient, Iteration* next) final {
    *next = k + 1;
    return step(k, gradient);
  }
  Status finish() final { return gossip_.finish(); }

 protected:
  virtual Status step(Iteration k, const GradientStep& gradient) = 0;

  const Run& run_;
  Gossip gossip_;
};

}  // namespace slip
