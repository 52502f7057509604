#include "slipstream/trainer/all_reduce_sgd.h"

#include <algorithm>
#include <optional>

#include "slipstream/collectives/all_reduce.h"

namespace slip {
namespace {

/// Nobody needs a gradient whose averaging has failed.
PartialAllReduceOptions of_gradients(const AllReduceSgd& options, int device) {
  return {.in_place = true, .wire = options.wire, .algorithm = options.algorithm, .device = device};
}
PartialAllReduceOptions of_parameters(const AllReduceSgd& options, int device) {
  return {.wire = options.wire, .algorithm = options.algorithm, .device = device};
}

class AllReduceProtocol final : public Protocol {
 public:
  AllReduceProtocol(const Run& run, const AllReduceSgd& options)
      : run_(run),
        options_(options),
        gradients_(run.world, run.name + "/gradient", run.x.count, run.x.dtype,
                   of_gradients(options, run.x.device)) {}

  Status enter(Iteration) override { return {}; }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    if (gradient.gradient) {
      if (Status s = mean(gradients_, *gradient.gradient); !s) return s;
      run_.timed(SpanKind::apply, [&] { gradient.apply(); });
      return {};
    }
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    return mean_of_parameters();
  }

  VectorView gradient_buffer() override { return gradients_.buffer(); }

 private:
  Status mean_of_parameters() {
    if (!parameters_) {  // all workers come here in the same iteration
      try {
        parameters_.emplace(run_.world, run_.name + "/parameters", run_.x.count, run_.x.dtype,
                            of_parameters(options_, run_.x.device));
      } catch (const Error& error) {
        return error.status();
      }
    }
    return mean(*parameters_, run_.x);
  }

  Status mean(AllReduce& all_reduce, VectorView vector) {
    const Time begin = run_.world.now();
    const Status status = all_reduce.mean(vector);
    run_.timeline.record(SpanKind::wait, run_.entered, begin, run_.world.now());
    run_.world.counters().max_gap_seen.raise_to(all_reduce.max_lead());
    return status;
  }

  const Run& run_;
  const AllReduceSgd options_;
  AllReduce gradients_;
  std::optional<AllReduce> parameters_;  // made by the first step with the user's own `apply`
};

}  // namespace

Options AllReduceSgd::describe() { return slip::describe(algorithm, wire); }

std::size_t AllReduceSgd::memory(const RunShape& shape) const {
  return AllReduce::memory(shape.graph.size(), shape.parameters, shape.dtype,
                           of_gradients(*this, shape.device));
}

std::unique_ptr<Protocol> AllReduceSgd::make(const Run& run) const {
  return std::make_unique<AllReduceProtocol>(run, *this);
}

SLIP_PROTOCOL(AllReduceSgd)

}  // namespace slip
