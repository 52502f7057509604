#include "slipstream/trainer/dybw.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "slipstream/collectives/arbiter.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/runtime/tokens.h"
#include "slipstream/runtime/update_queue.h"
#include "slipstream/trainer/gossip.h"
#include "slipstream/trainer/relay_trees.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

ArbiterOptions arbiter_options(const Dybw& options, const Graph& graph) {
  const double least = std::ceil(options.floor * graph.size());
  return {.tree = dtur_tree(graph),
          .carry = options.policy == Dybw::Policy::carry,
          .slack = options.slack,
          .floor = std::max(1, static_cast<int>(least))};
}

/// One slot: before a worker sends again, those who have used its last update say that they did.
UpdateQueueOptions queue_options(std::size_t bytes, int device = gpu::host) {
  UpdateQueueOptions options;
  options.bytes = bytes;
  options.depth = 1;
  options.device = device;
  return options;
}

class DturProtocol final : public Protocol {
 public:
  DturProtocol(const Run& run, const Dybw& options)
      : run_(run),
        carry_(options.policy == Dybw::Policy::carry),
        arbiter_(run.world, run.name + "/arbiter", arbiter_options(options, run.graph)),
        queue_(run.world, run.name + "/updates", run.neighbourhood,
               queue_options(run.x.bytes(), run.x.device)),
        tokens_(run.world, run.name + "/tokens", run.neighbourhood, 1),
        entered_(run.neighbourhood.in.size()) {}

  Status enter(Iteration k) override {
    if (!begun_) {  // not with 0 in a resumed run
      begun_ = true;
      std::fill(entered_.begin(), entered_.end(), k);
      if (Status s = arbiter_.begin(k); !s) return s;
    } else {
      run_.world.counters().max_gap_seen.raise_to(tokens_.lead(k));
    }
    return tokens_.announce(k);
  }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    while (arbiter_.ready()) {  // iterations that have ended while this worker computed
      if (Status s = take(); !s) return s;
    }
    const bool void_already = !carry_ && arbiter_.open() > k;
    if (void_already || over()) return leave(k, next);
    keep(gradient);
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    if (Status s = send(k); !s) return s;
    if (Status s = arbiter_.finished(k); !s) return s;
    do {
      if (Status s = await_seal(); !s) return s;
      if (takes_part()) {
        if (Status s = average(); !s) return s;
        return leave(k, next);
      }
    } while (carry_ && !over());
    restore(gradient);
    return leave(k, next);
  }

  std::function<bool()> superseded() override {
    if (carry_) return {};
    return [this] { return arbiter_.ready(); };
  }

  Status finish() override { return tokens_.announce_finished(); }

 private:
  // ---- Seals.

  /// The last iteration of the run has ended. What is sealed after it, by reports that were under
  /// way, counts for nobody.
  bool over() const { return arbiter_.open() > run_.stop.last(); }
  bool takes_part() const {
    return sealed_ && seal_.iteration <= run_.stop.last() && seal_.has(run_.world.rank());
  }

  Status take() {
    note();
    return arbiter_.take(&seal_, &sealed_);
  }

  Status await_seal() {
    const auto news = [&] { return arbiter_.ready() || over(); };
    note();
    do {
      if (Status s = run_.wait(news, "the end of the iteration", arbiter_.slack_ends()); !s) {
        return s;
      }
      if (over()) return {};
      if (!arbiter_.ready()) {
        if (Status s = arbiter_.end_slack(); !s) return s;
      } else if (Status s = arbiter_.take(&seal_, &sealed_); !s) {
        return s;
      }
    } while (!sealed_);
    // It may be one after the last iteration, which is not agreed on yet.
    const Iteration k = seal_.iteration;
    const auto known = [&] { return k <= run_.stop.bound() || k > run_.stop.last(); };
    return run_.wait(known, "all workers to agree on the last iteration");
  }

  /// A seal is done with: those neighbours who took part are in the next iteration.
  void note() {
    if (!sealed_) return;
    sealed_ = false;
    const bool took_part = seal_.has(run_.world.rank());
    for (std::size_t i = 0; i < entered_.size(); ++i) {
      if (!seal_.has(run_.neighbourhood.in[i].peer)) continue;
      entered_[i] = seal_.iteration + 1;
      if (!took_part) run_.world.counters().updates_late.add(1);
    }
  }

  /// Into the iteration after those that have ended.
  Status leave(Iteration k, Iteration* next) {
    *next = std::max(k + 1, std::min(arbiter_.open(), run_.stop.last() + 1));
    run_.world.counters().iterations_skipped.add(*next - (k + 1));
    return {};
  }

  // ---- Updates.

  /// An iteration that turns out to be void shall leave nothing behind.
  void keep(const GradientStep& gradient) {
    if (carry_) return;
    remember(kept_, run_.x);
    if (gradient.sgd.momentum != 0) remember(kept_velocity_, gradient.sgd.velocity);
  }

  void restore(const GradientStep& gradient) {
    if (carry_) return;
    kernels::copy(run_.x, kept_.view());
    if (gradient.sgd.momentum != 0) {
      kernels::copy(gradient.sgd.velocity, kept_velocity_.view());
    }
  }

  Status send(Iteration k) {
    // Those with whom this worker averaged last have read its update.
    const auto read = [&] {
      return std::all_of(readers_.begin(), readers_.end(),
                         [&](std::size_t out) { return tokens_.passed(out, averaged_); });
    };
    if (Status s = run_.wait(read, "its neighbours to read its last update"); !s) return s;
    readers_.clear();
    Status status;
    run_.timed(SpanKind::send, [&] {
      for (std::size_t out = 0; status && out < run_.neighbourhood.out.size(); ++out) {
        status = queue_.enqueue(out, k, static_cast<const std::byte*>(run_.x.data));
      }
    });
    return status;
  }

  /// Those neighbours of `rank` who take part: the paper's p_i(k).
  int active_neighbours(int rank) const {
    int count = 0;
    for (const int peer : run_.graph.neighbours_in(rank)) count += seal_.has(peer);
    return count;
  }

  /// x_j = P_jj x~_j + sum over the active neighbours of P_ij x~_i, with Metropolis weights.
  Status average() {
    const auto in_seal = [&](std::size_t i) { return seal_.has(run_.neighbourhood.in[i].peer); };
    // What a neighbour has sent bears the iteration that it entered.
    const auto tag = [&](std::size_t i) { return carry_ ? entered_[i] : seal_.iteration; };
    const auto here = [&] {
      for (std::size_t i = 0; i < entered_.size(); ++i) {
        if (in_seal(i) && !queue_.arrived(i, tag(i))) return false;
      }
      return true;
    };
    if (Status s = run_.wait(here, "updates of those who take part"); !s) return s;
    const int own_degree = active_neighbours(run_.world.rank());
    inputs_.assign(1, run_.x);
    weights_.assign(1, 1.0);
    for (std::size_t i = 0; i < entered_.size(); ++i) {
      if (!in_seal(i)) continue;
      if (Status s = queue_.verify(i, tag(i)); !s) return s;
      const int degree = active_neighbours(run_.neighbourhood.in[i].peer);
      const double weight = 1.0 / (1 + std::max(own_degree, degree));
      inputs_.push_back({queue_.update(i, tag(i)), run_.x.count, run_.x.dtype, run_.x.device});
      weights_.push_back(weight);
      weights_[0] -= weight;
      readers_.push_back(i);
      run_.world.counters().updates_used.add(1);
    }
    averaged_ = seal_.iteration;
    run_.timed(SpanKind::apply, [&] { kernels::weighted_average(run_.x, inputs_, weights_); });
    return {};
  }

  const Run& run_;
  const bool carry_;
  Arbiter arbiter_;
  UpdateQueue queue_;
  Tokens tokens_;
  bool begun_ = false;
  Seal seal_;
  bool sealed_ = false;             // seal_ has been taken and not been noted yet
  std::vector<Iteration> entered_;  // by neighbour, as far as the seals tell
  // Of its last average: the iteration, and the neighbours who used this worker's update.
  Iteration averaged_ = 0;
  std::vector<std::size_t> readers_;
  Vector kept_;
  Vector kept_velocity_;
  // Of the average at hand; they keep their capacity.
  std::vector<ConstVectorView> inputs_;
  std::vector<double> weights_;
};

/// cb-Full.
class FullProtocol final : public GossipProtocol {
 public:
  explicit FullProtocol(const Run& run)
      : GossipProtocol(run, run.neighbourhood, run.x.count),
        weights_(run.graph.mixing_row(run.world.rank(), Weights::metropolis)) {}

 private:
  Status step(Iteration, const GradientStep& gradient) override {
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    return gossip_.average(run_.x, weights_);
  }

  const MixingRow weights_;
};

}  // namespace

std::vector<std::pair<int, int>> dtur_tree(const Graph& graph) {
  const auto has = [&](int from, int to) {
    const auto out = graph.neighbours_out(from);
    return std::binary_search(out.begin(), out.end(), to);
  };
  std::vector<std::pair<int, int>> path;
  for (int rank = 0; rank + 1 < graph.size() && has(rank, rank + 1); ++rank) {
    path.emplace_back(rank, rank + 1);
  }
  if (static_cast<int>(path.size()) == graph.size() - 1) return path;
  const Graph tree = spanning_tree(graph);
  std::vector<std::pair<int, int>> edges;
  for (int rank = 0; rank < tree.size(); ++rank) {
    for (const int peer : tree.neighbours_out(rank)) {
      if (rank < peer) edges.emplace_back(rank, peer);
    }
  }
  return edges;
}

Options Dybw::describe() {
  return Options()
      .add("threshold", threshold, {"dtur", "full"},
           "end an iteration with an edge of the tree that is new, or wait for all neighbours")
      .add("policy", policy, {"abort", "carry"},
           "who is late drops its gradient, or takes part in a later iteration")
      .add("slack", slack, "an iteration that may end after T goes on for up to slack x T",
           Range::between(0, 1000))
      .add("floor", floor, "the share of the workers that finish in every iteration",
           Range::between(0, 1));
}

void Dybw::validate(const RunShape& shape) const {
  const auto refuse = [](const std::string& reason) {
    throw Error(Code::invalid_argument, "dybw: " + reason);
  };
  if (!shape.graph.is_symmetric() || !shape.graph.is_strongly_connected()) {
    refuse("the graph is directed or not connected, and so has no spanning tree");
  }
  if (!(slack >= 0 && slack <= 1000)) refuse("slack is from 0 to 1000");
  if (!(floor >= 0 && floor <= 1)) refuse("floor is from 0 to 1");
  if (threshold == Threshold::full && (slack != 0 || floor != 0)) {
    refuse("slack and floor are for threshold=dtur");
  }
}

std::size_t Dybw::memory(const RunShape& shape) const {
  const std::size_t neighbours = shape.graph.neighbours_in(shape.rank).size();
  if (threshold == Threshold::full) {
    return Gossip::memory(neighbours, shape.parameters, shape.dtype);
  }
  return UpdateQueue::memory(neighbours, queue_options(shape.parameters * size_of(shape.dtype))) +
         Arbiter::memory(shape.graph.size(), shape.rank);
}

std::unique_ptr<Protocol> Dybw::make(const Run& run) const {
  if (threshold == Threshold::full) return std::make_unique<FullProtocol>(run);
  return std::make_unique<DturProtocol>(run, *this);
}

SLIP_PROTOCOL(Dybw)

}  // namespace slip
