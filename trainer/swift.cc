#include "slipstream/trainer/swift.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "slipstream/collectives/mailbox.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

using Variant = Swift::Variant;

class SwiftProtocol final : public Protocol {
 public:
  SwiftProtocol(const Run& run, const Swift& options)
      : run_(run),
        options_(options),
        shares_(options.variant == Variant::paper ? swift_weights(run.graph, run.world.rank())
                                                  : run.weights.in),
        mailbox_(run.world, run.name + "/models", run.neighbourhood,
                 {.bytes = run.x.bytes(),
                  .device = run.x.device,
                  .lost =
                      [this](const Mailbox::Message& m) {
                        return run_.heterogeneity.drops(run_.world.rank(),
                                                        run_.neighbourhood.in[m.in].peer, m.round);
                      }}),
        used_(run.neighbourhood.in.size()) {}

  Status enter(Iteration k) override {
    // The neighbours begin with the same model.
    if (!start_ && options_.variant == Variant::paper) {
      start_.emplace(run_.x);
      kernels::copy(start_->view(), run_.x);
    }
    const bool sends = options_.variant == Variant::strong && k % steps() == 0;
    return sends ? send(k, true) : Status();
  }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    if (options_.variant == Variant::paper) {
      if (Status s = send(k, false); !s) return s;
    }
    if ((k + 1) % steps() == 0) return average(gradient);
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    return {};
  }

  void settle() override { mailbox_.count_sent(); }

 private:
  Iteration steps() const { return static_cast<Iteration>(options_.local_steps); }

  Status send(Iteration k, bool flush) {
    Status status;
    run_.timed(SpanKind::send, [&] {
      const auto model = mailbox_.buffer(run_.x.bytes());
      kernels::copy({model.get(), run_.x.count, run_.x.dtype, run_.x.device}, run_.x);
      for (std::size_t out = 0; out < run_.neighbourhood.out.size(); ++out) {
        letters_.push_back({out, 0, k, model, 0, run_.x.bytes()});
      }
      // Not always the same neighbour first, who would get most where little can be sent.
      if (!letters_.empty()) {
        const auto turn = static_cast<std::ptrdiff_t>(k / steps() % letters_.size());
        std::rotate(letters_.begin(), letters_.begin() + turn, letters_.end());
      }
      status = mailbox_.post(letters_, flush);
      letters_.clear();
    });
    return status;
  }

  /// The neighbours' newest models and this worker's own, and the gradient, which was taken before.
  Status average(const GradientStep& gradient) {
    Status status;
    run_.timed(SpanKind::apply, [&] {
      inputs_.assign(1, run_.x);
      weights_.assign(1, 1);
      std::vector<bool>& missing = missing_;
      missing.assign(shares_.size(), true);
      for (const Mailbox::Message& m : mailbox_.take()) {
        add({m.data, run_.x.count, run_.x.dtype, run_.x.device}, shares_[m.in]);
        missing[m.in] = false;
        if (std::exchange(used_[m.in], m.round) != m.round) {
          run_.world.counters().updates_used.add(1);
        }
      }
      for (std::size_t in = 0; start_ && in < shares_.size(); ++in) {
        if (missing[in]) add(start_->view(), shares_[in]);
      }
      gradient.average(inputs_, weights_, 0, run_.x.count);
      gradient.finish();
      status = mailbox_.give_back(Mailbox::Keep::newest);
    });
    return status;
  }

  /// What is missing counts to the worker's own.
  void add(ConstVectorView model, double weight) {
    inputs_.push_back(model);
    weights_.push_back(weight);
    weights_[0] -= weight;
  }

  const Run& run_;
  const Swift options_;
  const std::vector<double> shares_;  // by in-neighbour
  Mailbox mailbox_;
  std::optional<Vector> start_;
  std::vector<std::optional<Iteration>> used_;  // by in-neighbour
  // Of the iteration at hand; they keep their capacity.
  std::vector<Mailbox::Letter> letters_;
  std::vector<bool> missing_;
  std::vector<ConstVectorView> inputs_;
  std::vector<double> weights_;
};

}  // namespace

std::vector<double> swift_weights(const Graph& graph, int rank) {
  const auto degree = [&](int worker) { return graph.neighbours_in(worker).size(); };
  std::vector<int> order(static_cast<std::size_t>(graph.size()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), degree);
  std::map<std::pair<int, int>, double> given;  // by edge, both ways
  for (auto begin = order.begin(); begin != order.end();) {
    const auto end =
        std::find_if(begin, order.end(), [&](int w) { return degree(w) != degree(*begin); });
    std::map<std::pair<int, int>, double> wishes;
    for (const int worker : std::span(begin, end)) {
      double left = 1;
      std::size_t open = 0;
      for (const int peer : graph.neighbours_in(worker)) {
        const auto known = given.find({worker, peer});
        if (known != given.end()) left -= known->second;
        open += known == given.end() ? 1 : 0;
      }
      for (const int peer : graph.neighbours_in(worker)) {
        if (given.contains({worker, peer})) continue;
        wishes[{worker, peer}] = left / static_cast<double>(open + 1);
      }
    }
    for (const auto& [edge, wish] : wishes) {
      const auto other = wishes.find({edge.second, edge.first});
      const double weight = other == wishes.end() ? wish : std::min(wish, other->second);
      given[edge] = given[{edge.second, edge.first}] = weight;
    }
    begin = end;
  }
  std::vector<double> weights;
  for (const int peer : graph.neighbours_in(rank)) weights.push_back(given.at({rank, peer}));
  return weights;
}

Options Swift::describe() {
  return Options()
      .add("variant", variant, {"strong", "paper"},
           "the newest model is sent, before the gradient; or all are, after it (the paper's)")
      .add("local_steps", local_steps, "iterations from one average to the next",
           Range::at_least(1));
}

void Swift::validate(const RunShape& shape) const {
  const auto refuse = [](const std::string& reason) {
    throw Error(Code::invalid_argument, "swift: " + reason);
  };
  if (local_steps < 1) refuse("local_steps is at least 1");
  if (shape.graph.size() > 1 && !shape.graph.is_strongly_connected()) {
    refuse("the graph is not strongly connected: models would not reach everybody");
  }
  if (variant == Variant::paper && !shape.graph.is_symmetric()) {
    refuse("variant=paper needs a symmetric graph, for its weights");
  }
}

std::size_t Swift::memory(const RunShape& shape) const {
  return Mailbox::memory(shape.graph.neighbours_in(shape.rank).size(),
                         shape.graph.neighbours_out(shape.rank).size(),
                         shape.parameters * size_of(shape.dtype), 1);
}

std::unique_ptr<Protocol> Swift::make(const Run& run) const {
  return std::make_unique<SwiftProtocol>(run, *this);
}

SLIP_PROTOCOL(Swift)

}  // namespace slip
