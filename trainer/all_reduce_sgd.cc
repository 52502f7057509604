#include "slipstream/trainer/all_reduce_sgd.h"

#include <algorithm>

#include "slipstream/collectives/all_reduce.h"

namespace slip {
namespace {

class AllReduceProtocol final : public Protocol {
 public:
  explicit AllReduceProtocol(const Run& run)
      : run_(run), all_reduce_(run.world, run.name + "/gradient", run.x.count, run.x.dtype) {}

  Status enter(Iteration) override { return {}; }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    if (gradient.gradient) {
      if (Status s = mean(*gradient.gradient); !s) return s;
      run_.timed(SpanKind::apply, [&] { gradient.apply(); });
      return {};
    }
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    return mean(run_.x);
  }

  VectorView gradient_buffer() override { return all_reduce_.buffer(); }

 private:
  Status mean(VectorView vector) {
    const Time begin = run_.world.now();
    const Status status = all_reduce_.mean(vector);
    run_.timeline.record(SpanKind::wait, run_.entered, begin, run_.world.now());
    Counters& counters = run_.world.counters();
    counters.max_gap_seen.set(std::max(counters.max_gap_seen.get(), all_reduce_.max_lead()));
    return status;
  }

  const Run& run_;
  AllReduce all_reduce_;
};

}  // namespace

std::size_t AllReduceSgd::memory(const RunShape& shape) const {
  return AllReduce::memory(shape.graph.size(), shape.parameters, shape.dtype);
}

std::unique_ptr<Protocol> AllReduceSgd::make(const Run& run) const {
  return std::make_unique<AllReduceProtocol>(run);
}

}  // namespace slip
