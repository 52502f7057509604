// Compiled once per instruction set, as average.cc is.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "slipstream/kernels/cpu/bf16.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cassert>
#include <cstdint>

#include "slipstream/kernels/cuda/cuda_internal.h"
#include "slipstream/kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
#pragma GCC visibility push(hidden)
namespace slip::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The upper half of a float, rounded to nearest, ties to even. NaN stays NaN.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<std::uint16_t, D>> rounded(D, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto nearest = hn::Add(hn::Add(bits, hn::Set(du, 0x7fff)), odd);
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
  const auto result = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, nearest);
  // Not negative, and too small to saturate.
  return hn::DemoteTo(hn::Rebind<std::uint16_t, D>(), hn::BitCast(di, hn::ShiftRight<16>(result)));
}

template <class D>
HWY_INLINE hn::Vec<D> widened(D d, hn::Vec<hn::Rebind<std::uint16_t, D>> x) {
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, x)));
}

template <class D>
HWY_INLINE void convert(D d, const float* from, std::uint16_t* to) {
  hn::StoreU(rounded(d, hn::LoadU(d, from)), hn::Rebind<std::uint16_t, D>(), to);
}
template <class D>
HWY_INLINE void convert(D d, const double* from, std::uint16_t* to) {
  const hn::Rebind<float, D> df;
  hn::StoreU(rounded(df, hn::DemoteTo(df, hn::LoadU(d, from))), hn::Rebind<std::uint16_t, D>(), to);
}
template <class D>
HWY_INLINE void convert(D d, const std::uint16_t* from, float* to) {
  hn::StoreU(widened(d, hn::LoadU(hn::Rebind<std::uint16_t, D>(), from)), d, to);
}
template <class D>
HWY_INLINE void convert(D d, const std::uint16_t* from, double* to) {
  const hn::Rebind<float, D> df;
  const auto x = widened(df, hn::LoadU(hn::Rebind<std::uint16_t, D>(), from));
  hn::StoreU(hn::PromoteTo(d, x), d, to);
}

/// First to last, as `from` may be the end of `to`. T is the wider type.
template <class T, class From, class To>
void convert_all(const From* from, To* to, std::size_t count) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) convert(d, from + i, to + i);
  const hn::CappedTag<T, 1> single;
  for (; i < count; ++i) convert(single, from + i, to + i);
}

void to_bf16(std::span<std::uint16_t> out, ConstVectorView x) {
  if (x.dtype == Dtype::float32) {
    convert_all<float>(static_cast<const float*>(x.data), out.data(), x.count);
  } else {
    convert_all<double>(static_cast<const double*>(x.data), out.data(), x.count);
  }
}

void from_bf16(VectorView out, std::span<const std::uint16_t> x) {
  if (out.dtype == Dtype::float32) {
    convert_all<float>(x.data(), static_cast<float*>(out.data), x.size());
  } else {
    convert_all<double>(x.data(), static_cast<double*>(out.data), x.size());
  }
}

}  // namespace slip::kernels::HWY_NAMESPACE
#pragma GCC visibility pop
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace slip::kernels {
namespace {

HWY_EXPORT(to_bf16);
HWY_EXPORT(from_bf16);

}  // namespace

void to_bf16(std::span<std::uint16_t> out, ConstVectorView x) {
  assert(out.size() == x.count);
  if (x.on_gpu()) return cuda::to_bf16(out, x);
  HWY_DYNAMIC_DISPATCH(to_bf16)(out, x);
}

void from_bf16(VectorView out, std::span<const std::uint16_t> x) {
  assert(out.count == x.size());
  if (out.on_gpu()) return cuda::from_bf16(out, x);
  HWY_DYNAMIC_DISPATCH(from_bf16)(out, x);
}

}  // namespace slip::kernels
#endif  // HWY_ONCE
