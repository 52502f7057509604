#include "slipstream/trainer/relay_sgd.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "slipstream/collectives/relay.h"
#include "slipstream/trainer/relay_trees.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

using Normalise = RelaySgd::Normalise;
using Payload = RelaySgd::Payload;
using Schedule = RelaySgd::Schedule;

constexpr int most_stale = 1000;

/// The elements that tree `i` of `trees` has: contiguous parts, as equal as may be.
std::pair<std::size_t, std::size_t> part_of(std::size_t count, std::size_t i, std::size_t trees) {
  const std::size_t first = count * i / trees;
  return {first, count * (i + 1) / trees - first};
}

class RelaySgdProtocol final : public Protocol {
 public:
  RelaySgdProtocol(const Run& run, const RelaySgd& options)
      : run_(run),
        options_(options),
        correction_(options.correct_lr ? 1 + mean_delay(run.graph, options.schedule) : 1) {
    const std::vector<Graph> trees = relay_trees(run.graph);
    for (std::size_t i = 0; i < trees.size(); ++i) {
      const auto [first, count] = part_of(run.x.count, i, trees.size());
      parts_.push_back({first, count,
                        Relay(run.world, fmt::format("{}/tree{}", run.name, i),
                              trees[i].neighbourhood(run.world.rank()), count, run.x.dtype,
                              options.staleness, run.x.device)});
    }
  }

  Status enter(Iteration k) override {
    if (first_) {
      note_gap(k);
      return {};
    }
    first_ = k;  // not 0 in a resumed run
    if (options_.normalise == Normalise::initial) remember(initial_, run_.x);
    return {};
  }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    local_step(gradient);
    if (options_.schedule == Schedule::overlap) {
      if (k > *first_) {
        if (Status s = receive(k - 1); !s) return s;
      }
      if (Status s = send(k, true); !s) return s;
    } else {
      if (Status s = send(k, false); !s) return s;
      if (Status s = receive(k); !s) return s;
      run_.timed(SpanKind::apply, [&] {
        for (const Part& part : parts_) {
          const kernels::RelayAverage average = average_of(part);
          kernels::relay({}, own(part), part.relay.messages(), &average);
        }
      });
    }
    *next = k + 1;
    return {};
  }

 private:
  struct Part {
    std::size_t first;
    std::size_t count;
    Relay relay;
  };

  bool all_models() const {
    return std::all_of(parts_.begin(), parts_.end(),
                       [&](const Part& part) { return part.relay.models() == run_.world.size(); });
  }

  /// A neighbour has entered the round of its last message.
  void note_gap(Iteration k) {
    Counter& gap = run_.world.counters().max_gap_seen;
    for (const Part& part : parts_) gap.raise_to(part.relay.behind(k));
  }

  /// x becomes this worker's model of the round. The one before is kept where it may be needed: to
  /// tell the update, and to stand for models that may be missing.
  void local_step(const GradientStep& gradient) {
    const bool updates = options_.relay == Payload::updates;
    const bool may_miss = run_.heterogeneity.drops_any() || !all_models();
    run_.timed(SpanKind::apply, [&] {
      if (updates || (options_.normalise == Normalise::latest && may_miss))
        remember(latest_, run_.x);
      GradientStep corrected = gradient;
      corrected.sgd.learning_rate *= correction_;
      corrected.apply();
      if (!updates) return;
      if (update_.view().data == nullptr) update_ = Vector(run_.x);
      const ConstVectorView inputs[] = {run_.x, latest_.view()};
      const double difference[] = {1, -1};
      kernels::weighted_average(update_.view(), inputs, difference);
    });
  }

  /// What this worker adds to the sums.
  ConstVectorView own(const Part& part) {
    const VectorView whole = options_.relay == Payload::updates ? update_.view() : run_.x;
    return whole.slice(part.first, part.count);
  }

  /// And averages what is here already, in the same pass.
  Status send(Iteration k, bool averages) {
    Status status;
    run_.timed(SpanKind::send, [&] {
      for (Part& part : parts_) {
        const kernels::RelayAverage average = average_of(part);
        if (status) status = part.relay.send(k, own(part), averages ? &average : nullptr);
      }
    });
    return status;
  }

  Status receive(Iteration round) {
    const auto arrived = [&] {
      return std::all_of(parts_.begin(), parts_.end(),
                         [&](const Part& part) { return part.relay.arrived(round); });
    };
    if (Status s = run_.wait(arrived, "messages of its neighbours"); !s) return s;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const auto lost = [&](int sender, Iteration sent) {
        return run_.heterogeneity.drops(run_.world.rank(), sender, sent, i);
      };
      if (Status s = parts_[i].relay.hold(round, lost); !s) return s;
    }
    return {};
  }

  /// The mean of what is here of all workers, in place of the worker's own model.
  kernels::RelayAverage average_of(const Part& part) {
    const auto n = static_cast<double>(run_.world.size());
    const auto models = static_cast<double>(part.relay.models());
    const VectorView x = run_.x.slice(part.first, part.count);
    if (options_.relay == Payload::updates) {
      return {x, 1 / n, latest_.view().slice(part.first, part.count), 1};
    }
    if (options_.normalise == Normalise::counts) return {x, 1 / models};
    if (models < n) return {x, 1 / n, missing(part), (n - models) / n};
    return {x, 1 / n};
  }

  ConstVectorView missing(const Part& part) {
    switch (options_.normalise) {
      case Normalise::initial:
        return initial_.view().slice(part.first, part.count);
      case Normalise::latest:
        return latest_.view().slice(part.first, part.count);
      default:
        return own(part);
    }
  }

  const Run& run_;
  const RelaySgd options_;
  const double correction_;
  std::vector<Part> parts_;
  std::optional<Iteration> first_;
  Vector initial_;
  Vector latest_;  // the model before the step
  Vector update_;
};

}  // namespace

double mean_delay(const Graph& graph, RelaySgd::Schedule schedule) {
  const std::vector<Graph> trees = relay_trees(graph);
  const double n = graph.size();
  double sum = 0;
  for (const Graph& tree : trees) {
    // In the round itself a neighbour's model is no older than the worker's own.
    sum += mean_hops(tree) - (schedule == Schedule::same_round ? (n - 1) / n : 0);
  }
  return sum / static_cast<double>(trees.size());
}

Options RelaySgd::describe() {
  return Options()
      .add("normalise", normalise, {"counts", "initial", "latest", "own"},
           "what stands for models that are missing: nothing, the first, the last average, its own")
      .add("schedule", schedule, {"same-round", "overlap"},
           "wait for a round's messages, or take them in the next")
      .add("correct_lr", correct_lr, "multiply the learning rate by 1 + the mean delay")
      .add("relay", relay, {"models", "updates"}, "what is summed up: RelaySum/Model or /Grad")
      .add("staleness", staleness, "rounds that a message may be late and is used again",
           Range::between(0, most_stale));
}

void RelaySgd::validate(const RunShape& shape) const {
  const auto refuse = [](const std::string& reason) {
    throw Error(Code::invalid_argument, "relay_sgd: " + reason);
  };
  if (!shape.graph.is_symmetric() || !shape.graph.is_strongly_connected()) {
    refuse("the graph is directed or not connected, and so has no spanning tree");
  }
  if (staleness < 0 || staleness > most_stale) {
    refuse(fmt::format("staleness is from 0 to {}", most_stale));
  }
  if (relay == Payload::updates && staleness > 0) {
    refuse("relay=updates has no staleness: an update counts once");
  }
  if (relay == Payload::updates && normalise != Normalise::latest) {
    refuse("relay=updates has no normalise: an update that is missing counts as none");
  }
}

std::size_t RelaySgd::memory(const RunShape& shape) const {
  const std::vector<Graph> trees = relay_trees(shape.graph);
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < trees.size(); ++i) {
    bytes +=
        Relay::memory(trees[i].neighbours_in(shape.rank).size(),
                      part_of(shape.parameters, i, trees.size()).second, shape.dtype, staleness);
  }
  return bytes;
}

std::unique_ptr<Protocol> RelaySgd::make(const Run& run) const {
  return std::make_unique<RelaySgdProtocol>(run, *this);
}

SLIP_PROTOCOL(RelaySgd)

}  // namespace slip
