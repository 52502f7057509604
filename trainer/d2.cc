#include "slipstream/trainer/d2.h"

#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/gossip.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

MixingRow half_way(MixingRow row) {
  row.own = (1 + row.own) / 2;
  for (double& weight : row.in) weight /= 2;
  return row;
}

class D2Protocol final : public GossipProtocol {
 public:
  D2Protocol(const Run& run, const D2& options)
      : GossipProtocol(run, run.neighbourhood, run.x.count),
        weights_(options.lazy ? half_way(run.weights) : run.weights),
        stepped_(run.x),
        correction_(run.x) {}

 private:
  Status step(Iteration, const GradientStep& gradient) override {
    run_.timed(SpanKind::apply, [&] {
      gradient.apply();
      kernels::copy(stepped_.view(), run_.x);
      kernels::axpy(run_.x, 1, correction_.view());
    });
    if (Status s = gossip_.average(run_.x, weights_); !s) return s;
    run_.timed(SpanKind::apply, [&] {
      const ConstVectorView inputs[] = {run_.x, stepped_.view()};
      const double difference[] = {1, -1};
      kernels::weighted_average(correction_.view(), inputs, difference);
    });
    return {};
  }

  const MixingRow weights_;
  Vector stepped_;     // x + u
  Vector correction_;  // what averaging made of the last x + u, less that
};

}  // namespace

Options D2::describe() {
  return Options().add("lazy", lazy, "average with (W + I) / 2, which is stable on every graph");
}

void D2::validate(const RunShape& shape) const {
  if (shape.graph.is_symmetric()) return;
  throw Error(Code::invalid_argument, "d2: the graph is directed; take a symmetric one");
}

std::size_t D2::memory(const RunShape& shape) const {
  return Gossip::memory(shape.graph.neighbours_in(shape.rank).size(), shape.parameters,
                        shape.dtype);
}

std::unique_ptr<Protocol> D2::make(const Run& run) const {
  return std::make_unique<D2Protocol>(run, *this);
}

SLIP_PROTOCOL(D2)

}  // namespace slip
