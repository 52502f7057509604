#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "slipstream/base/function_ref.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/kernels/vector.h"

namespace slip {

/// The user's part of one iteration: either a gradient, applied by momentum SGD in the same pass
/// as the average, or a function that changes the averaged parameters as it likes.
struct GradientStep {
  VectorView x;  // the worker's parameters, read and written
  std::optional<VectorView> gradient;
  kernels::SgdStep sgd;
  std::optional<FunctionRef<void(VectorView)>> function;

  /// Elements [first, first + n) of x <- sum weights[i] * inputs[i], and the gradient applied. The
  /// inputs cover just these elements; inputs[0] is the worker's own.
  void average(std::span<const ConstVectorView> inputs, std::span<const double> weights,
               std::size_t first, std::size_t n) const {
    const VectorView out = x.slice(first, n);
    if (!gradient) return kernels::weighted_average(out, inputs, weights);
    kernels::SgdStep part = sgd;
    if (sgd.momentum != 0) part.velocity = sgd.velocity.slice(first, n);
    kernels::average_apply(out, inputs, weights, gradient->slice(first, n), part);
  }

  /// After the last `average` of the iteration.
  void finish() const {
    if (function) (*function)(x);
  }

  /// No averaging: the step on the worker's own parameters.
  void apply() const {
    const ConstVectorView own = x;
    const double one = 1;
    if (gradient) average({&own, 1}, {&one, 1}, 0, x.count);
    finish();
  }
};

}  // namespace slip
