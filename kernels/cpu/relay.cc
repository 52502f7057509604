// Compiled once per instruction set, as average.cc is.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "slipstream/kernels/cpu/relay.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cassert>

#include "slipstream/kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
#pragma GCC visibility push(hidden)
namespace slip::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class T>
struct Round {
  std::span<const VectorView> sums;
  const T* own;
  std::span<const ConstVectorView> messages;
  const RelayAverage* average;

  /// The elements [i, i + Lanes(d)). A message comes from memory once, and then from the nearest
  /// cache: there are few of them. The average comes last, as it may overwrite `own`.
  template <class D>
  HWY_INLINE void operator()(D d, std::size_t i) const {
    const auto load = [&](ConstVectorView from) {
      return hn::LoadU(d, static_cast<const T*>(from.data) + i);
    };
    const hn::Vec<D> mine = hn::LoadU(d, own + i);
    for (std::size_t k = 0; k < sums.size(); ++k) {
      hn::Vec<D> sum = mine;
      for (std::size_t from = 0; from < messages.size(); ++from) {
        if (from == k || messages[from].data == nullptr) continue;
        sum = hn::Add(sum, load(messages[from]));
      }
      hn::StoreU(sum, d, static_cast<T*>(sums[k].data) + i);
    }
    if (average == nullptr) return;
    const hn::Vec<D> weight = hn::Set(d, static_cast<T>(average->weight));
    hn::Vec<D> mean = hn::Mul(weight, mine);
    for (const ConstVectorView& message : messages) {
      if (message.data != nullptr) mean = hn::Add(mean, hn::Mul(weight, load(message)));
    }
    if (average->rest.data != nullptr) {
      const hn::Vec<D> rest_weight = hn::Set(d, static_cast<T>(average->rest_weight));
      mean = hn::Add(mean, hn::Mul(rest_weight, load(average->rest)));
    }
    hn::StoreU(mean, d, static_cast<T*>(average->out.data) + i);
  }
};

template <class T>
void run(const Round<T> round, std::size_t count) {
  const hn::ScalableTag<T> d;
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) round(d, i);
  const hn::CappedTag<T, 1> single;
  for (; i < count; ++i) round(single, i);
}

void relay(std::span<const VectorView> sums, ConstVectorView own,
           std::span<const ConstVectorView> messages, const RelayAverage* average) {
  if (own.dtype == Dtype::float32) {
    run(Round<float>{sums, own.as<float>().data(), messages, average}, own.count);
  } else {
    run(Round<double>{sums, own.as<double>().data(), messages, average}, own.count);
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
  HWY_DYNAMIC_DISPATCH(relay)(sums, own, messages, average);
}

}  // namespace slip::kernels
#endif  // HWY_ONCE
