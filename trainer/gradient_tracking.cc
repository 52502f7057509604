#include "slipstream/trainer/gradient_tracking.h"

#include "slipstream/collectives/tree.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/gossip.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

void difference(VectorView out, ConstVectorView a, ConstVectorView b) {
  const ConstVectorView inputs[] = {a, b};
  const double weights[] = {1, -1};
  kernels::weighted_average(out, inputs, weights);
}

/// What both have in common: two vectors are averaged, and c_ corrects.
class Tracking : public GossipProtocol {
 public:
  explicit Tracking(const Run& run)
      : GossipProtocol(run, run.neighbourhood, 2 * run.x.count),
        both_(2 * run.x.count, run.x.dtype, run.x.device),
        c_(run.x),
        change_(run.x) {}

 protected:
  VectorView both(std::size_t i) const {
    return both_.view().slice(i * run_.x.count, run_.x.count);
  }

  Vector both_;
  Vector c_;
  Vector change_;
};

/// x = W (h + c),  c = W (c + u) - u  where h = x + u is the local step.
class UpdateTracking final : public Tracking {
 public:
  using Tracking::Tracking;

 private:
  Status step(Iteration, const GradientStep& gradient) override {
    const VectorView u = change_.view();
    run_.timed(SpanKind::apply, [&] {
      kernels::copy(u, run_.x);
      gradient.apply();
      difference(u, run_.x, u);
      kernels::copy(both(0), run_.x);
      kernels::axpy(both(0), 1, c_.view());
      kernels::copy(both(1), u);
      kernels::axpy(both(1), 1, c_.view());
    });
    if (Status s = gossip_.average(both_.view(), run_.weights); !s) return s;
    run_.timed(SpanKind::apply, [&] {
      kernels::copy(run_.x, both(0));
      difference(c_.view(), both(1), u);
    });
    return {};
  }
};

/// m = beta m + g,  x = W x - lr (m - c),  c = W (c - m) + m.
class MomentumTracking final : public Tracking {
 public:
  MomentumTracking(const Run& run) : Tracking(run), m_(run.x) {}

 private:
  Status step(Iteration, const GradientStep& gradient) override {
    if (Status s = renew_momentum(gradient); !s) return s;
    // A user's own step is as it is.
    const double rate = gradient.gradient ? gradient.sgd.learning_rate : 1;
    run_.timed(SpanKind::apply, [&] {
      kernels::copy(both(0), run_.x);
      difference(both(1), c_.view(), m_.view());
    });
    if (Status s = gossip_.average(both_.view(), run_.weights); !s) return s;
    run_.timed(SpanKind::apply, [&] {
      const ConstVectorView inputs[] = {both(0), m_.view(), c_.view()};
      const double weights[] = {1, -rate, rate};
      kernels::weighted_average(run_.x, inputs, weights);
      kernels::copy(c_.view(), both(1));
      kernels::axpy(c_.view(), 1, m_.view());
    });
    return {};
  }

  Status renew_momentum(const GradientStep& gradient) {
    const VectorView g = change_.view();
    const double beta = gradient.gradient ? gradient.sgd.momentum : 0;
    run_.timed(SpanKind::apply, [&] {
      kernels::copy(g, run_.x);
      if (gradient.gradient) {
        const ConstVectorView inputs[] = {*gradient.gradient, run_.x};
        const double weights[] = {1, gradient.sgd.weight_decay};
        kernels::weighted_average(g, inputs, weights);
      } else {
        gradient.apply();
        difference(m_.view(), g, run_.x);
        kernels::copy(run_.x, g);
        kernels::copy(g, m_.view());
      }
    });
    if (!begun_) {
      if (Status s = begin(g, beta); !s) return s;
    }
    run_.timed(SpanKind::apply, [&] {
      const ConstVectorView inputs[] = {m_.view(), g};
      const double weights[] = {beta, 1};
      kernels::weighted_average(m_.view(), inputs, weights);
    });
    return {};
  }

  /// c = m = (g - mean g) / (1 - beta), so that the c of all workers sum up to nothing.
  Status begin(ConstVectorView g, double beta) {
    begun_ = true;
    kernels::copy(c_.view(), g);
    try {
      on_host(run_.world, c_.view(),
              [&](VectorView c) { tree_mean(run_.world, run_.name + "/first", c); });
    } catch (const Error& error) {
      return error.status();
    }
    const ConstVectorView inputs[] = {g, c_.view()};
    const double weights[] = {1 / (1 - beta), -1 / (1 - beta)};
    kernels::weighted_average(m_.view(), inputs, weights);
    kernels::copy(c_.view(), m_.view());
    return {};
  }

  Vector m_;
  bool begun_ = false;
};

}  // namespace

Options GradientTracking::describe() {
  return Options().add("track", track, {"updates", "momentum"},
                       "of what the mean is estimated: local steps, or Momentum Tracking");
}

void GradientTracking::validate(const RunShape& shape) const {
  if (shape.graph.is_symmetric()) return;
  throw Error(Code::invalid_argument,
              "gradient_tracking: the graph is directed; take a symmetric one");
}

std::size_t GradientTracking::memory(const RunShape& shape) const {
  return Gossip::memory(shape.graph.neighbours_in(shape.rank).size(), 2 * shape.parameters,
                        shape.dtype);
}

std::unique_ptr<Protocol> GradientTracking::make(const Run& run) const {
  if (track == Track::updates) return std::make_unique<UpdateTracking>(run);
  return std::make_unique<MomentumTracking>(run);
}

SLIP_PROTOCOL(GradientTracking)

}  // namespace slip
