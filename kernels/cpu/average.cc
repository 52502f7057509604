// Compiled once per instruction set: foreach_target.h includes this file again for each, and
// HWY_DYNAMIC_DISPATCH picks the best that the processor has.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "slipstream/kernels/cpu/average.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "slipstream/kernels/cuda/cuda_internal.h"
#include "slipstream/kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
#pragma GCC visibility push(hidden)
namespace slip::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The weighted inputs of a call.
template <class T>
struct Terms {
  std::span<const ConstVectorView> inputs;
  std::span<const double> weights;

  std::size_t size() const { return inputs.size(); }

  /// weights[k] * inputs[k] from element i on. Mul, and Add in the sums, never MulAdd: kernels.h.
  template <class D>
  HWY_INLINE hn::Vec<D> term(D d, std::size_t k, std::size_t i) const {
    const T* input = static_cast<const T*>(inputs[k].data);
    return hn::Mul(hn::Set(d, static_cast<T>(weights[k])), hn::LoadU(d, input + i));
  }
};

/// What becomes of an average before it is stored: nothing.
struct AverageOnly {
  template <class D, class V>
  HWY_INLINE V operator()(D, std::size_t, V average) const {
    return average;
  }
};

/// It is stored elsewhere, too.
template <class T>
struct Copied {
  std::span<const VectorView> copies;

  template <class D, class V>
  HWY_INLINE V operator()(D d, std::size_t i, V average) const {
    for (const VectorView& copy : copies) hn::StoreU(average, d, static_cast<T*>(copy.data) + i);
    return average;
  }
};

/// The step of SgdStep. `velocity` is null where there is no momentum.
template <class T>
struct Sgd {
  T learning_rate, momentum, weight_decay;
  const T* own;
  const T* gradient;
  T* velocity;

  template <class D, class V>
  HWY_INLINE V operator()(D d, std::size_t i, V average) const {
    V v = hn::Add(hn::LoadU(d, gradient + i),
                  hn::Mul(hn::Set(d, weight_decay), hn::LoadU(d, own + i)));
    if (velocity != nullptr) {
      v = hn::Add(hn::Mul(hn::Set(d, momentum), hn::LoadU(d, velocity + i)), v);
      hn::StoreU(v, d, velocity + i);
    }
    return hn::Sub(average, hn::Mul(hn::Set(d, learning_rate), v));
  }
};

/// The elements [i, i + Lanes(d)).
template <class T, class D, class Finish>
HWY_INLINE void one_vector(D d, std::size_t i, T* out, const Terms<T>& terms,
                           const Finish& finish) {
  hn::Vec<D> sum = terms.term(d, 0, i);
  for (std::size_t k = 1; k < terms.size(); ++k) sum = hn::Add(sum, terms.term(d, k, i));
  hn::StoreU(finish(d, i, sum), d, out + i);
}

/// The elements [i, i + 4 Lanes(d)). Four sums at once hide the latency of the additions and share
/// the fetching of pointers and weights, so that few inputs need no loops of their own. Plain
/// stores: `out` is mostly an input too, where non-temporal ones lose more than they win elsewhere.
template <class T, class D, class Finish>
HWY_INLINE void four_vectors(D d, std::size_t i, T* out, const Terms<T>& terms,
                             const Finish& finish) {
  const std::size_t i1 = i + hn::Lanes(d), i2 = i1 + hn::Lanes(d), i3 = i2 + hn::Lanes(d);
  hn::Vec<D> sum0 = terms.term(d, 0, i), sum1 = terms.term(d, 0, i1);
  hn::Vec<D> sum2 = terms.term(d, 0, i2), sum3 = terms.term(d, 0, i3);
  for (std::size_t k = 1; k < terms.size(); ++k) {
    sum0 = hn::Add(sum0, terms.term(d, k, i));
    sum1 = hn::Add(sum1, terms.term(d, k, i1));
    sum2 = hn::Add(sum2, terms.term(d, k, i2));
    sum3 = hn::Add(sum3, terms.term(d, k, i3));
  }
  hn::StoreU(finish(d, i, sum0), d, out + i);
  hn::StoreU(finish(d, i1, sum1), d, out + i1);
  hn::StoreU(finish(d, i2, sum2), d, out + i2);
  hn::StoreU(finish(d, i3, sum3), d, out + i3);
}

template <class T, class Finish>
void average(std::span<T> out, const Terms<T> terms, const Finish finish) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + 4 * lanes <= out.size(); i += 4 * lanes) {
    four_vectors(d, i, out.data(), terms, finish);
  }
  for (; i + lanes <= out.size(); i += lanes) one_vector(d, i, out.data(), terms, finish);
  const hn::CappedTag<T, 1> single;
  for (; i < out.size(); ++i) one_vector(single, i, out.data(), terms, finish);
}

template <class T>
Sgd<T> sgd(const SgdStep& step, ConstVectorView own, ConstVectorView gradient) {
  return {.learning_rate = static_cast<T>(step.learning_rate),
          .momentum = static_cast<T>(step.momentum),
          .weight_decay = static_cast<T>(step.weight_decay),
          .own = static_cast<const T*>(own.data),
          .gradient = static_cast<const T*>(gradient.data),
          .velocity = step.momentum != 0 ? static_cast<T*>(step.velocity.data) : nullptr};
}

void weighted_average(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights) {
  if (out.dtype == Dtype::float32) {
    average(out.as<float>(), Terms<float>{inputs, weights}, AverageOnly());
  } else {
    average(out.as<double>(), Terms<double>{inputs, weights}, AverageOnly());
  }
}

void average_and_copy(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights, std::span<const VectorView> copies) {
  if (out.dtype == Dtype::float32) {
    average(out.as<float>(), Terms<float>{inputs, weights}, Copied<float>{copies});
  } else {
    average(out.as<double>(), Terms<double>{inputs, weights}, Copied<double>{copies});
  }
}

void average_apply(VectorView out, std::span<const ConstVectorView> inputs,
                   std::span<const double> weights, ConstVectorView gradient, const SgdStep& step) {
  if (out.dtype == Dtype::float32) {
    average(out.as<float>(), Terms<float>{inputs, weights}, sgd<float>(step, inputs[0], gradient));
  } else {
    average(out.as<double>(), Terms<double>{inputs, weights},
            sgd<double>(step, inputs[0], gradient));
  }
}

const char* target_name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace slip::kernels::HWY_NAMESPACE
#pragma GCC visibility pop
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace slip::kernels {
namespace {

HWY_EXPORT(weighted_average);
HWY_EXPORT(average_and_copy);
HWY_EXPORT(average_apply);
HWY_EXPORT(target_name);

[[maybe_unused]] bool same_shape(ConstVectorView a, ConstVectorView b) {
  return a.dtype == b.dtype && a.count == b.count && a.device == b.device;
}

[[maybe_unused]] bool valid(ConstVectorView out, std::span<const ConstVectorView> inputs,
                            std::span<const double> weights) {
  return !inputs.empty() && inputs.size() == weights.size() &&
         std::all_of(inputs.begin(), inputs.end(),
                     [&](ConstVectorView input) { return same_shape(input, out); });
}

}  // namespace

void weighted_average(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights) {
  assert(valid(out, inputs, weights));
  if (out.on_gpu()) return cuda::weighted_average(out, inputs, weights);
  HWY_DYNAMIC_DISPATCH(weighted_average)(out, inputs, weights);
}

void weighted_average(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights, std::span<const VectorView> copies) {
  assert(valid(out, inputs, weights));
  assert(std::all_of(copies.begin(), copies.end(),
                     [&](VectorView copy) { return same_shape(copy, out); }));
  if (out.on_gpu()) return cuda::weighted_average(out, inputs, weights, copies);
  HWY_DYNAMIC_DISPATCH(average_and_copy)(out, inputs, weights, copies);
}

void average_apply(VectorView out, std::span<const ConstVectorView> inputs,
                   std::span<const double> weights, ConstVectorView gradient, const SgdStep& step) {
  assert(valid(out, inputs, weights) && same_shape(gradient, out));
  assert(step.momentum == 0 || same_shape(step.velocity, out));
  if (out.on_gpu()) return cuda::average_apply(out, inputs, weights, gradient, step);
  HWY_DYNAMIC_DISPATCH(average_apply)(out, inputs, weights, gradient, step);
}

// y is multiplied by 1, which is exact, so this is the sum of the plain loop.
void axpy(VectorView y, double a, ConstVectorView x) {
  const std::array<ConstVectorView, 2> inputs{y, x};
  const std::array<double, 2> weights{1, a};
  weighted_average(y, inputs, weights);
}

const char* target_name() { return HWY_DYNAMIC_DISPATCH(target_name)(); }

}  // namespace slip::kernels
#endif  // HWY_ONCE
