#include "slipstream/trainer/ad_psgd.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "slipstream/base/align_internal.h"
#include "slipstream/base/random.h"
#include "slipstream/gpu/side_stream.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/ad_psgd_paper_internal.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

/// Those who may ask only ask, and the others only answer, so nobody waits in a circle.
bool asks(AdPsgd::Mode mode, int rank) { return mode == AdPsgd::Mode::pull || rank % 2 == 1; }
bool answers(AdPsgd::Mode mode, int rank) { return mode == AdPsgd::Mode::pull || rank % 2 == 0; }

/// In order of rank. Information reaches everybody in O(log workers) exchanges.
std::vector<int> neighbours(AdPsgd::Mode mode, int rank, int workers) {
  std::set<int> found;
  for (int distance = 1, step = 2; distance < workers; distance = 1 + step, step *= 2) {
    for (const int peer : {(rank + distance) % workers, (rank - distance + workers) % workers}) {
      const bool meet =
          (asks(mode, rank) && answers(mode, peer)) || (answers(mode, rank) && asks(mode, peer));
      if (peer != rank && meet) found.insert(peer);
    }
  }
  return {found.begin(), found.end()};
}

// What a worker gets from a peer: a line with a word, then a vector.
std::size_t lane_bytes(std::size_t vector_bytes) { return line + round_up(vector_bytes); }

// In the answer's word beside the question's number: the neighbour is done and averages no more.
constexpr Iteration numbered(Iteration k, bool refused) { return 2 * (k + 1) + (refused ? 1 : 0); }

class AdPsgdProtocol final : public Protocol {
 public:
  AdPsgdProtocol(const Run& run, const AdPsgd& options)
      : run_(run),
        options_(options),
        lane_bytes_(lane_bytes(run.x.bytes())),
        neighbours_(neighbours(options.mode, run.world.rank(), run.world.size())),
        questions_(run.world.allocate(run.name + "/questions",
                                      std::max<std::size_t>(1, neighbours_.size()) * lane_bytes_,
                                      Bell::progress, run.x.device)),
        answer_(run.world.allocate(run.name + "/answer", lane_bytes_, Bell::worker, run.x.device)),
        answered_(neighbours_.size()),
        side_(run.x.device) {
    for (const int peer : neighbours_) {
      const std::vector<int> theirs = neighbours(options.mode, peer, run.world.size());
      const auto place = std::lower_bound(theirs.begin(), theirs.end(), run.world.rank());
      at_peer_.push_back(static_cast<std::size_t>(place - theirs.begin()) * lane_bytes_);
      peer_questions_.push_back(run.world.attach(peer, run.name + "/questions"));
      peer_answer_.push_back(run.world.attach(peer, run.name + "/answer"));
    }
  }

  Status enter(Iteration k) override {
    if (!serving_ && answers(options_.mode, run_.world.rank())) {
      if (Status s = open(); !s) return s;
    }
    const bool asks_now = options_.order == AdPsgd::Order::parallel && k % steps() == 0;
    return asks_now ? ask(k) : Status();
  }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    run_.world.counters().bytes_sent.add(sent_.exchange(0, std::memory_order_relaxed));
    if (!asks(options_.mode, run_.world.rank())) {
      return apply_to_model(gradient);
    }
    Status status;
    const bool parallel = options_.order == AdPsgd::Order::parallel;
    const bool ends = (k + 1) % steps() == 0;
    if (parallel && options_.local_steps == 1) {
      status = average(k, gradient);
    } else {
      run_.timed(SpanKind::apply, [&] { gradient.apply(); });
      if (ends && !parallel) status = ask(k);
      // A resumed run may begin within a round, for which it has not asked.
      if (ends && status && asking_) status = average(k, {run_.x, {}, {}, {}});
    }
    return status && serving_ ? publish() : status;
  }

  Status finish() override {
    if (asks(options_.mode, run_.world.rank())) {
      // It may end within a round, when its neighbour has taken the mean already.
      return asking_ ? average(run_.entered, {run_.x, {}, {}, {}}) : Status();
    }
    const std::lock_guard lock(mutex_);
    closed_ = true;
    if (Status s = side_.lead(); !s) return s;
    kernels::copy(run_.x, model_.view());
    return {};
  }

 private:
  Iteration steps() const { return static_cast<Iteration>(options_.local_steps); }
  /// The number of an exchange, which is begun in one iteration and ends in another.
  Iteration exchange_of(Iteration k) const { return k / steps(); }

  // ---- As the one who asks.

  Status ask(Iteration k) {
    if (neighbours_.empty() || !asks(options_.mode, run_.world.rank())) return {};
    asking_ = true;
    Random draw(key({run_.seed, static_cast<std::uint64_t>(run_.world.rank()), k}));
    const std::size_t peer = draw.below(neighbours_.size());
    // Who pulls has nothing to give.
    const std::size_t bytes = options_.mode == AdPsgd::Mode::bipartite ? run_.x.bytes() : 0;
    run_.world.counters().bytes_sent.add(bytes);
    run_.world.counters().updates_sent.add(1);
    Status status;
    run_.timed(SpanKind::send, [&] {
      status = run_.world.transport().put_signal(
          peer_questions_[peer], at_peer_[peer] + line, run_.x.data, bytes, at_peer_[peer],
          make_word(run_.world.incarnation(), numbered(exchange_of(k), false)));
      if (options_.local_steps > 1) {
        remember(asked_, run_.x);
      }
    });
    return status;
  }

  Status average(Iteration k, const GradientStep& gradient) {
    if (neighbours_.empty()) {
      run_.timed(SpanKind::apply, [&] { gradient.apply(); });
      return {};
    }
    Iteration number = 0;
    const auto answered = [&] {
      number = iteration_of(answer_.word(0));
      return number / 2 == exchange_of(k) + 1;
    };
    if (Status s = run_.wait(answered, "its neighbour's model"); !s) return s;
    asking_ = false;
    // The bipartite neighbour has taken the mean already: both have the same, bit for bit.
    const double own = options_.mode == AdPsgd::Mode::bipartite ? 0 : 0.5;
    // With local steps the mean is of what x was when it asked, and the steps since then count on
    // top of that.
    const bool stepped = options_.local_steps > 1;
    const ConstVectorView theirs{answer_.data() + line, run_.x.count, run_.x.dtype, run_.x.device};
    const ConstVectorView all_inputs[] = {run_.x, theirs, asked_.view()};
    const double all_weights[] = {stepped ? 1 : own, 1 - own, own - 1};
    const std::span inputs(all_inputs, stepped ? 3 : 2);
    const std::span weights(all_weights, inputs.size());
    run_.timed(SpanKind::apply, [&] {
      if (number == numbered(exchange_of(k), true)) return gradient.apply();
      gradient.average(inputs, weights, 0, run_.x.count);
      gradient.finish();
    });
    run_.world.counters().updates_used.add(1);
    return {};
  }

  // ---- As the one who answers: its model is beside x, which the user computes with.

  /// The start is known now; who was faster may have asked already.
  Status open() {
    remember(model_, run_.x);
    if (Status s = side_.follow(); !s) return s;
    serving_ = run_.world.progress().serve(run_.world.transport(), [this] { return answer_all(); });
    return {};
  }

  /// change(), between what the progress thread does with the model before and after it.
  template <class Change>
  Status with_model(Change change) {
    const std::lock_guard lock(mutex_);
    if (Status s = side_.lead(); !s) return s;
    change();
    return side_.follow();
  }

  Status publish() {
    return with_model([&] { kernels::copy(model_.view(), run_.x); });
  }

  Status apply_to_model(const GradientStep& gradient) {
    Status status;
    run_.timed(SpanKind::apply, [&] {
      status = with_model([&] {
        const ConstVectorView own = model_.view();
        const double one = 1;
        gradient.average({&own, 1}, {&one, 1}, 0, run_.x.count);
        gradient.finish();
        kernels::copy(model_.view(), run_.x);
      });
    });
    return status;
  }

  /// On the progress thread.
  bool answer_all() {
    const gpu::CurrentStream enqueuing(side_.stream());
    bool any = false;
    for (std::size_t i = 0; i < neighbours_.size(); ++i) {
      const Iteration number = iteration_of(questions_.word(i * lane_bytes_));
      if (number == answered_[i]) continue;
      answered_[i] = number;
      any = true;
      if (Status s = answer(i, number); !s) run_.world.abort(s);
    }
    return any;
  }

  /// The answer goes out of the question's lane, which nobody writes until it has come.
  Status answer(std::size_t i, Iteration number) {
    const VectorView lane{questions_.data() + i * lane_bytes_ + line, run_.x.count, run_.x.dtype,
                          run_.x.device};
    bool refused = false;
    {
      const std::lock_guard lock(mutex_);
      refused = closed_;
      if (options_.mode == AdPsgd::Mode::pull) {
        kernels::copy(lane, model_.view());
      } else if (!refused) {
        const ConstVectorView inputs[] = {lane, model_.view()};
        const double halves[] = {0.5, 0.5};
        kernels::weighted_average(lane, inputs, halves);
        kernels::copy(model_.view(), lane);
      }
    }
    const std::size_t bytes = refused ? 0 : lane.bytes();
    sent_.fetch_add(bytes, std::memory_order_relaxed);
    return run_.world.transport().put_signal(
        peer_answer_[i], line, lane.data, bytes, 0,
        make_word(run_.world.incarnation(), number | (refused ? 1 : 0)));
  }

  const Run& run_;
  const AdPsgd options_;
  const std::size_t lane_bytes_;
  const std::vector<int> neighbours_;
  Region questions_;                          // here, by neighbour
  Region answer_;                             // here
  std::vector<std::size_t> at_peer_;          // of this worker's lane in a neighbour's questions
  std::vector<RemoteRegion> peer_questions_;  // by neighbour
  std::vector<RemoteRegion> peer_answer_;
  std::vector<Iteration> answered_;  // the progress thread's
  bool asking_ = false;              // an exchange is under way
  Vector asked_;                     // with local steps: x as it was when it asked
  std::mutex mutex_;                 // guards model_, side_'s order with the worker's, and closed_
  Vector model_;
  gpu::SideStream side_;  // of the answers
  bool closed_ = false;
  std::atomic<std::uint64_t> sent_{0};  // by the progress thread, not counted yet; relaxed
  std::unique_ptr<Progress::Handle> serving_;
};

}  // namespace

Options AdPsgd::describe() {
  return Options()
      .add("mode", mode, {"bipartite", "pull", "paper"},
           "both take the mean, which is preserved (AD-PSGD's own); one pulls and takes it alone; "
           "or "
           "as DivShare's paper had it: random workers exchange models, which queue up")
      .add("order", order, {"parallel", "serial"},
           "exchange while computing, or after the gradient; not with mode=paper")
      .add("local_steps", local_steps, "iterations from one exchange to the next",
           Range::at_least(1))
      .add("fanout", fanout, "models that an exchange sends and asks for, with mode=paper",
           Range::at_least(2));
}

void AdPsgd::validate(const RunShape&) const {
  if (local_steps < 1) throw Error(Code::invalid_argument, "ad_psgd: local_steps is at least 1");
  if (fanout < 2) throw Error(Code::invalid_argument, "ad_psgd: fanout is at least 2");
}

std::size_t AdPsgd::memory(const RunShape& shape) const {
  if (mode == Mode::paper) return paper_ad_psgd_memory(shape);
  const std::size_t lanes = neighbours(mode, shape.rank, shape.graph.size()).size() + 1;
  return lanes * lane_bytes(shape.parameters * size_of(shape.dtype));
}

std::unique_ptr<Protocol> AdPsgd::make(const Run& run) const {
  if (mode == Mode::paper) return make_paper_ad_psgd(run, *this);
  return std::make_unique<AdPsgdProtocol>(run, *this);
}

SLIP_PROTOCOL(AdPsgd)

}  // namespace slip
