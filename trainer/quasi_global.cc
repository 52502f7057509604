#include "slipstream/trainer/quasi_global.h"

#include <algorithm>

#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/gossip.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

class QuasiGlobalProtocol final : public GossipProtocol {
 public:
  explicit QuasiGlobalProtocol(const Run& run)
      : GossipProtocol(run, run.neighbourhood, run.x.count), before_(run.x) {}

 private:
  Status step(Iteration, const GradientStep& gradient) override {
    if (!gradient.gradient || gradient.sgd.momentum == 0) {
      run_.timed(SpanKind::apply, [&] { gradient.apply(); });
      return gossip_.average(run_.x, run_.weights);
    }
    const kernels::SgdStep& sgd = gradient.sgd;
    const double beta = sgd.momentum, rate = sgd.learning_rate;
    run_.timed(SpanKind::apply, [&] {
      kernels::copy(before_.view(), run_.x);
      // With b = beta m + g' and g' = g + weight_decay x: x - rate (g' + beta b).
      const ConstVectorView inputs[] = {run_.x, *gradient.gradient, sgd.velocity};
      const double direct = rate * (1 + beta);
      const double weights[] = {1 - direct * sgd.weight_decay, -direct, -rate * beta * beta};
      kernels::weighted_average(run_.x, inputs, weights);
    });
    if (Status s = gossip_.average(run_.x, run_.weights); !s) return s;
    run_.timed(SpanKind::apply, [&] {
      // m = beta m + (1 - beta) (x_before - x) / rate
      const ConstVectorView inputs[] = {sgd.velocity, before_.view(), run_.x};
      const double scale = (1 - beta) / std::max(rate, 1e-8);
      const double weights[] = {beta, scale, -scale};
      kernels::weighted_average(sgd.velocity, inputs, weights);
    });
    return {};
  }

  Vector before_;
};

}  // namespace

std::size_t QuasiGlobal::memory(const RunShape& shape) const {
  return Gossip::memory(shape.graph.neighbours_in(shape.rank).size(), shape.parameters,
                        shape.dtype);
}

std::unique_ptr<Protocol> QuasiGlobal::make(const Run& run) const {
  return std::make_unique<QuasiGlobalProtocol>(run);
}

SLIP_PROTOCOL(QuasiGlobal)

}  // namespace slip
