// Compiled once per instruction set, as average.cc is.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "slipstream/kernels/cpu/relay.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cassert>

#include "slipstream/kernels/cuda/cuda_internal.h"
#include "slipstream/kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
#pragma GCC visibility push(hidden)
namespace slip::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// One output: weight * (own + the messages that count, but messages[but]) + rest_weight * rest.
template <class T, bool weighted>
struct Sum {
  T* out;
  const T* own;
  std::span<const ConstVectorView> messages;
  std::size_t but;
  T weight;
  const T* rest;
  T rest_weight;

  template <class D>
  HWY_INLINE hn::Vec<D> scaled(D d, const T* from) const {
    const hn::Vec<D> x = hn::LoadU(d, from);
    return weighted ? hn::Mul(hn::Set(d, weight), x) : x;
  }

  /// The elements [i, i + Lanes(d)), or four times as many at once, as in average.cc.
  template <class D>
  HWY_INLINE void one(D d, std::size_t i) const {
    hn::Vec<D> sum = scaled(d, own + i);
    for (std::size_t k = 0; k < messages.size(); ++k) {
      const T* message = static_cast<const T*>(messages[k].data);
      if (k != but && message != nullptr) sum = hn::Add(sum, scaled(d, message + i));
    }
    if (rest != nullptr) {
      sum = hn::Add(sum, hn::Mul(hn::Set(d, rest_weight), hn::LoadU(d, rest + i)));
    }
    hn::StoreU(sum, d, out + i);
  }
  template <class D>
  HWY_INLINE void four(D d, std::size_t i) const {
    const std::size_t i1 = i + hn::Lanes(d), i2 = i1 + hn::Lanes(d), i3 = i2 + hn::Lanes(d);
    hn::Vec<D> sum0 = scaled(d, own + i), sum1 = scaled(d, own + i1);
    hn::Vec<D> sum2 = scaled(d, own + i2), sum3 = scaled(d, own + i3);
    for (std::size_t k = 0; k < messages.size(); ++k) {
      const T* message = static_cast<const T*>(messages[k].data);
      if (k == but || message == nullptr) continue;
      sum0 = hn::Add(sum0, scaled(d, message + i));
      sum1 = hn::Add(sum1, scaled(d, message + i1));
      sum2 = hn::Add(sum2, scaled(d, message + i2));
      sum3 = hn::Add(sum3, scaled(d, message + i3));
    }
    if (rest != nullptr) {
      const hn::Vec<D> w = hn::Set(d, rest_weight);
      sum0 = hn::Add(sum0, hn::Mul(w, hn::LoadU(d, rest + i)));
      sum1 = hn::Add(sum1, hn::Mul(w, hn::LoadU(d, rest + i1)));
      sum2 = hn::Add(sum2, hn::Mul(w, hn::LoadU(d, rest + i2)));
      sum3 = hn::Add(sum3, hn::Mul(w, hn::LoadU(d, rest + i3)));
    }
    hn::StoreU(sum0, d, out + i);
    hn::StoreU(sum1, d, out + i1);
    hn::StoreU(sum2, d, out + i2);
    hn::StoreU(sum3, d, out + i3);
  }

  void run(std::size_t first, std::size_t end) const {
    const hn::ScalableTag<T> d;
    std::size_t i = first;
    for (; i + 4 * hn::Lanes(d) <= end; i += 4 * hn::Lanes(d)) four(d, i);
    const hn::CappedTag<T, 1> single;
    for (; i < end; ++i) one(single, i);
  }
};

/// Block by block, so that what comes from memory for the first sum is near for all others. The
/// average comes last, as it may overwrite `own`.
template <class T>
void run(std::span<const VectorView> sums, ConstVectorView own,
         std::span<const ConstVectorView> messages, const RelayAverage* average) {
  constexpr std::size_t block = 4096 / sizeof(T);
  const T* mine = own.as<T>().data();
  for (std::size_t first = 0; first < own.count; first += block) {
    const std::size_t end = std::min(first + block, own.count);
    for (std::size_t k = 0; k < sums.size(); ++k) {
      T* out = static_cast<T*>(sums[k].data);
      Sum<T, false>{out, mine, messages, k, 1, nullptr, 0}.run(first, end);
    }
    if (average == nullptr) continue;
    Sum<T, true>{static_cast<T*>(average->out.data),
                 mine,
                 messages,
                 messages.size(),
                 static_cast<T>(average->weight),
                 static_cast<const T*>(average->rest.data),
                 static_cast<T>(average->rest_weight)}
        .run(first, end);
  }
}

void relay(std::span<const VectorView> sums, ConstVectorView own,
           std::span<const ConstVectorView> messages, const RelayAverage* average) {
  if (own.dtype == Dtype::float32) {
    run<float>(sums, own, messages, average);
  } else {
    run<double>(sums, own, messages, average);
  }
}

}  // namespace slip::kernels::HWY_NAMESPACE
#pragma GCC visibility pop
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace slip::kernels {
namespace {

HWY_EXPORT(relay);

[[maybe_unused]] bool same_shape(ConstVectorView a, ConstVectorView b) {
  return a.data == nullptr || (a.dtype == b.dtype && a.count == b.count);
}

}  // namespace

void relay(std::span<const VectorView> sums, ConstVectorView own,
           std::span<const ConstVectorView> messages, const RelayAverage* average) {
  assert(sums.empty() || sums.size() == messages.size());
  assert(std::all_of(sums.begin(), sums.end(), [&](auto v) { return same_shape(v, own); }));
  assert(std::all_of(messages.begin(), messages.end(), [&](auto v) { return same_shape(v, own); }));
  assert(average == nullptr || (same_shape(average->out, own) && same_shape(average->rest, own)));
  if (own.on_gpu()) return cuda::relay(sums, own, messages, average);
  HWY_DYNAMIC_DISPATCH(relay)(sums, own, messages, average);
}

}  // namespace slip::kernels
#endif  // HWY_ONCE
