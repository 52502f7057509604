#include "slipstream/trainer/hop.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "slipstream/gpu/side_stream.h"
#include "slipstream/runtime/tokens.h"
#include "slipstream/runtime/update_queue.h"

namespace slip {
namespace {

/// Slots per in-neighbour. A sender in iteration t overwrites t - depth, and the tokens say that
/// its receiver is at t - max_gap or later, where it may read updates that are `staleness` older. A
/// test shows that one slot less fails. Without tokens there is a slot for every iteration of the
/// run; memory comes as it is touched.
int depth(const Hop& hop, Iteration iterations) {
  if (hop.notify_ack) return 1;
  if (!hop.tokens) return static_cast<int>(iterations);
  return hop.max_gap + 1 + hop.staleness.value_or(0);
}

/// Updates of an iteration that a worker waits for: one at least, but for a world of one.
int needed(int in_neighbours, int backup) {
  return std::min(in_neighbours, std::max(1, in_neighbours - backup));
}

UpdateQueueOptions queue_options(const Hop& hop, std::size_t bytes, Iteration iterations,
                                 int device) {
  UpdateQueueOptions options;
  options.device = device;
  options.bytes = bytes;
  options.depth = depth(hop, iterations);
  return options;
}

class HopProtocol final : public Protocol {
 public:
  HopProtocol(const Run& run, const Hop& options)
      : run_(run),
        options_(options),
        need_(needed(static_cast<int>(run.neighbourhood.in.size()), options.backup)),
        depth_(depth(options, run.stop.last() + 1)),
        queue_(run.world, run.name + "/updates", run.neighbourhood,
               queue_options(options, run.x.bytes(), run.stop.last() + 1, run.x.device)),
        // An acknowledgement is a token that is given on consuming an update, not on entering an
        // iteration, and there is one.
        tokens_(run.world, run.name + "/tokens", run.neighbourhood,
                options.notify_ack ? 1 : options.max_gap),
        sending_(run.x.device),
        last_used_(run.neighbourhood.in.size(), -1),
        unmet_(run.neighbourhood.in.size(), 0) {}

  Status enter(Iteration k) override {
    // All begin in the same iteration (not 0 in a resumed run), so the first needs no tokens.
    if (!first_) first_ = k;
    if (options_.tokens && !options_.notify_ack) {
      if (Status s = take_tokens(k); !s) return s;
    }
    note_gap(k);
    if (!options_.notify_ack) {
      if (Status s = tokens_.announce(k); !s) return s;
    }
    // Who has no acknowledgement yet may compute meanwhile.
    sent_ = options_.order == Hop::Order::parallel && (!options_.notify_ack || permitted(k));
    return sent_ ? send(k) : Status();
  }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    const bool serial = options_.order == Hop::Order::serial;
    if (serial) run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    if (!sent_) {
      if (options_.notify_ack) {
        if (Status s = take_tokens(k); !s) return s;
      }
      if (Status s = send(k); !s) return s;
    }
    // In serial order the gradient is in x already, and what is left to do is to average.
    if (Status s = receive_and_reduce(k, serial ? average_only() : gradient); !s) return s;
    if (options_.notify_ack) {
      if (Status s = tokens_.announce(k); !s) return s;
    }
    return skip(k, next);
  }

  Status finish() override { return tokens_.announce_finished(); }

 private:
  bool permitted(Iteration k) const { return k == *first_ || tokens_.may_enter(k); }

  Status take_tokens(Iteration k) {
    return run_.wait([&] { return permitted(k); }, "tokens from its receivers");
  }

  void note_gap(Iteration k) {
    if (k == *first_) return;
    // Who has acknowledged an iteration has left it.
    const Iteration lead = tokens_.lead(k);
    const Iteration gap = options_.notify_ack && lead > 0 ? lead - 1 : lead;
    run_.world.counters().max_gap_seen.raise_to(gap);
  }

  GradientStep average_only() const { return {run_.x, {}, {}, {}}; }

  /// On a GPU beside the gradient, which only reads the parameters as well.
  Status send(Iteration k) {
    Status status = sending_.follow();
    const gpu::CurrentStream beside(sending_.stream());
    run_.timed(SpanKind::send, [&] {
      for (std::size_t out = 0; status && out < run_.neighbourhood.out.size(); ++out) {
        // The sending check: a receiver that is past every iteration in which it could use k.
        const auto staleness = static_cast<Iteration>(options_.staleness.value_or(0));
        if (tokens_.passed(out, k + staleness)) continue;
        status = queue_.enqueue(out, k, static_cast<const std::byte*>(run_.x.data));
      }
    });
    return status;
  }

  Status receive_and_reduce(Iteration k, const GradientStep& gradient) {
    if (Status s = sending_.lead(); !s) return s;  // the parameters are written now
    if (options_.staleness) return reduce_stale(k, gradient);
    if (options_.backup > 0) return reduce_backup(k, gradient);
    return reduce_standard(k, gradient);
  }

  /// Every in-neighbour's update of k, chunk by chunk as they come.
  Status reduce_standard(Iteration k, const GradientStep& gradient) {
    const std::size_t neighbours = run_.neighbourhood.in.size();
    begin_inputs();
    for (std::size_t in = 0; in < neighbours; ++in) add_input(in, k, run_.weights.in[in]);
    const std::size_t element = size_of(run_.x.dtype);
    std::size_t first = 0;
    for (std::size_t chunk = 0; chunk < queue_.chunks(); ++chunk) {
      const auto here = [&] {
        for (std::size_t in = 0; in < neighbours; ++in) {
          if (!queue_.chunk_arrived(in, k, chunk)) return false;
        }
        return true;
      };
      if (Status s = run_.wait(here, "updates of its neighbours"); !s) return s;
      const std::size_t count = queue_.chunk_size(chunk) / element;
      run_.timed(SpanKind::apply, [&] { average(gradient, first, count); });
      first += count;
    }
    gradient.finish();
    return check_used();
  }

  /// Backup workers: all but `backup` of the updates of k, and those that happen to be there.
  Status reduce_backup(Iteration k, const GradientStep& gradient) {
    const auto enough = [&] { return queue_.size(k) >= need_; };
    if (Status s = run_.wait(enough, "enough updates of its neighbours"); !s) return s;
    discard_late(k);
    begin_inputs();
    for (std::size_t in = 0; in < run_.neighbourhood.in.size(); ++in) {
      if (queue_.arrived(in, k)) add_input(in, k, run_.weights.in[in]);  // the second look
    }
    return reduce_inputs(gradient);
  }

  /// Bounded staleness: the newest update of every in-neighbour, none older than k - staleness,
  /// weighted by how fresh it is. An update may be used again while it is fresh enough.
  Status reduce_stale(Iteration k, const GradientStep& gradient) {
    const auto s = static_cast<std::int64_t>(*options_.staleness);
    const auto oldest = static_cast<std::int64_t>(k) - s;
    const auto fresh = [&] {
      for (std::size_t in = 0; in < run_.neighbourhood.in.size(); ++in) {
        if (newest(in, k) < oldest) return false;
      }
      return true;
    };
    if (Status status = run_.wait(fresh, "updates that are fresh enough"); !status) return status;
    discard_late(static_cast<Iteration>(std::max<std::int64_t>(0, oldest)));
    begin_inputs();
    weights_[0] = static_cast<double>(s + 1);
    for (std::size_t in = 0; in < run_.neighbourhood.in.size(); ++in) {
      const std::int64_t tag = newest(in, k);
      // In the first iterations of all a neighbour may not have sent anything yet.
      if (tag < 0) continue;
      add_input(in, static_cast<Iteration>(tag), static_cast<double>(tag - oldest + 1));
    }
    return reduce_inputs(gradient);
  }

  /// The newest iteration whose update of `in` is here, at most what a sender may have sent; -1:
  /// none.
  std::int64_t newest(std::size_t in, Iteration k) const {
    const std::int64_t most =
        options_.tokens ? static_cast<std::int64_t>(k) + options_.max_gap : depth_ - 1;
    const std::int64_t least = std::max<std::int64_t>(0, most - depth_ + 1);
    for (std::int64_t tag = most; tag >= least; --tag) {
      if (queue_.arrived(in, static_cast<Iteration>(tag))) return tag;
    }
    return -1;
  }

  /// Counts what has come since the last look and is too old already. An update that gives way to a
  /// newer one of its sender while it could be used is not late.
  void discard_late(Iteration oldest) {
    for (std::size_t in = 0; in < unmet_.size(); ++in) {
      const Iteration first = unmet_[in];
      const Iteration end = std::min(oldest, first + static_cast<Iteration>(depth_));
      for (Iteration slot = first; slot < end; ++slot) {
        const auto tag = queue_.held(in, slot);
        if (!tag || *tag < first || *tag >= oldest) continue;
        unmet_[in] = std::max(unmet_[in], *tag + 1);
        run_.world.counters().updates_late.add(1);
      }
    }
  }

  void begin_inputs() {
    inputs_.assign(1, run_.x);
    weights_.assign(1, run_.weights.own);
    used_.clear();
  }

  void add_input(std::size_t in, Iteration tag, double weight) {
    inputs_.push_back({queue_.update(in, tag), run_.x.count, run_.x.dtype, run_.x.device});
    weights_.push_back(weight);
    used_.emplace_back(in, tag);
  }

  void average(const GradientStep& gradient, std::size_t first, std::size_t count) {
    slices_.clear();
    for (const ConstVectorView& input : inputs_) slices_.push_back(input.slice(first, count));
    gradient.average(slices_, weights_, first, count);
  }

  /// The average of what was taken, whose weights are scaled to sum to 1.
  Status reduce_inputs(const GradientStep& gradient) {
    const double sum = std::accumulate(weights_.begin(), weights_.end(), 0.0);
    for (double& weight : weights_) weight /= sum;
    run_.timed(SpanKind::apply, [&] {
      average(gradient, 0, run_.x.count);
      gradient.finish();
    });
    return check_used();
  }

  /// Counts what was used. With checksums on, it was whole; without staleness, it was new.
  Status check_used() {
    for (const auto& [in, tag] : used_) {
      if (Status s = queue_.verify(in, tag); !s) return s;
      const std::int64_t before = std::exchange(last_used_[in], static_cast<std::int64_t>(tag));
      if (before != last_used_[in]) run_.world.counters().updates_used.add(1);
      unmet_[in] = std::max(unmet_[in], tag + 1);
      if (before >= last_used_[in] && !options_.staleness) {
        return {Code::bad_data, "hop: an update would be used twice",
                run_.neighbourhood.in[in].peer};
      }
    }
    return {};
  }

  /// Skipping: a worker that lags behind every receiver jumps, after it has renewed its parameters
  /// from the updates of the iteration before the one that it enters.
  Status skip(Iteration k, Iteration* next) {
    *next = k + 1;
    if (options_.max_jump == 0) return {};
    const Iteration lag = tokens_.lag(k);
    if (lag < static_cast<Iteration>(options_.skip_trigger)) return {};
    // More than max_gap + 1 deadlocks on directed graphs: senders wait for this worker's tokens.
    const Iteration jump = std::min({lag, static_cast<Iteration>(options_.max_jump),
                                     static_cast<Iteration>(options_.max_gap) + 1,
                                     std::max(run_.stop.bound(), k + 1) - k});
    if (jump <= 1) return {};
    *next = k + jump;
    run_.world.counters().iterations_skipped.add(jump - 1);
    return receive_and_reduce(*next - 1, average_only());
  }

  const Run& run_;
  const Hop options_;
  const int need_;
  const int depth_;
  UpdateQueue queue_;
  Tokens tokens_;
  std::optional<Iteration> first_;
  bool sent_ = false;  // the update of the iteration at hand
  gpu::SideStream sending_;
  // Of the reduction at hand; they keep their capacity.
  std::vector<ConstVectorView> inputs_;
  std::vector<ConstVectorView> slices_;
  std::vector<double> weights_;
  std::vector<std::pair<std::size_t, Iteration>> used_;
  // Per in-neighbour; its updates come in the order of their iterations.
  std::vector<std::int64_t> last_used_;
  std::vector<Iteration> unmet_;  // behind all that were used or discarded
};

}  // namespace

Options Hop::describe() {
  return Options()
      .add("max_gap", max_gap, "iterations a sender may be ahead of a receiver",
           Range::between(1, most))
      .add("backup", backup, "updates per iteration that a worker may do without",
           Range::at_least(0))
      .add("staleness", staleness, "iterations that a used update may be old",
           Range::between(0, most))
      .add("max_jump", max_jump, "iterations a lagging worker may advance at once; 0: no skipping",
           Range::at_least(0))
      .add("skip_trigger", skip_trigger, "lag behind every receiver from which it jumps",
           Range::at_least(2))
      .add("order", order, {"parallel", "serial"}, "send before the gradient, or after applying it")
      .add("notify_ack", notify_ack, "the baseline with one buffer and acknowledgements")
      .add("tokens", tokens, "off: nothing bounds the gap but the updates; simulator only");
}

void Hop::validate(const RunShape& shape) const {
  const auto refuse = [](const std::string& reason) {
    throw Error(Code::invalid_argument, "hop: " + reason);
  };
  if (max_gap < 1 || max_gap > most) refuse(fmt::format("max_gap is from 1 to {}", most));
  if (backup < 0) refuse("backup is at least 0");
  if (staleness && (*staleness < 0 || *staleness > most)) {
    refuse(fmt::format("staleness is from 0 to {}", most));
  }
  if (backup > 0 && staleness) {
    refuse("backup and staleness exclude each other: either updates may be missing or old");
  }
  if (notify_ack && (backup > 0 || staleness)) {
    refuse("notify_ack excludes backup and staleness: every update must be acknowledged");
  }
  if (max_jump < 0) refuse("max_jump is at least 0");
  if (max_jump > 0 && backup == 0 && !staleness) {
    refuse(
        "max_jump needs backup or staleness: otherwise nobody can do without a worker's updates");
  }
  if (max_jump > 0 && skip_trigger < 2) refuse("skip_trigger is at least 2");
  if (!tokens) {
    if (!shape.simulated) refuse("tokens=off is for the simulator: nothing bounds its queues");
    if (shape.iterations > static_cast<Iteration>(most)) {
      refuse(fmt::format("tokens=off needs a number of iterations, at most {}", most));
    }
    if (notify_ack) refuse("notify_ack has no tokens to turn off");
    if (max_jump > 0) refuse("max_jump needs tokens: they tell a worker how far it lags");
  }
  if (shape.graph.size() > 1 && !shape.graph.is_strongly_connected()) {
    refuse("the graph is not strongly connected: updates would not reach everybody");
  }
}

std::size_t Hop::memory(const RunShape& shape) const {
  return UpdateQueue::memory(shape.graph.neighbours_in(shape.rank).size(),
                             queue_options(*this, shape.parameters * size_of(shape.dtype),
                                           shape.iterations, shape.device));
}

std::unique_ptr<Protocol> Hop::make(const Run& run) const {
  return std::make_unique<HopProtocol>(run, *this);
}

SLIP_PROTOCOL(Hop)

}  // namespace slip
