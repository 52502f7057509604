// Compiled once per instruction set: foreach_target.h includes this file again for each, and
// HWY_DYNAMIC_DISPATCH picks the best that the processor has.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "slipstream/base/copy.cc"
#include "slipstream/base/copy.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
#pragma GCC visibility push(hidden)
namespace slip::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Whole vectors from the first one that is aligned in `to`; what is left at both ends, twice in
/// part, is one vector each.
void copy_vectors(std::uint8_t* to, const std::uint8_t* from, std::size_t bytes) {
  const hn::ScalableTag<std::uint8_t> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto last = hn::LoadU(d, from + bytes - lanes);
  const auto first = hn::LoadU(d, from);
  std::size_t i = lanes - reinterpret_cast<std::uintptr_t>(to) % lanes;
  for (; i + 4 * lanes <= bytes; i += 4 * lanes) {
    const auto v0 = hn::LoadU(d, from + i), v1 = hn::LoadU(d, from + i + lanes);
    const auto v2 = hn::LoadU(d, from + i + 2 * lanes), v3 = hn::LoadU(d, from + i + 3 * lanes);
    hn::Store(v0, d, to + i);
    hn::Store(v1, d, to + i + lanes);
    hn::Store(v2, d, to + i + 2 * lanes);
    hn::Store(v3, d, to + i + 3 * lanes);
  }
  for (; i + lanes <= bytes; i += lanes) hn::Store(hn::LoadU(d, from + i), d, to + i);
  hn::StoreU(first, d, to);
  hn::StoreU(last, d, to + bytes - lanes);
}

}  // namespace slip::HWY_NAMESPACE
#pragma GCC visibility pop
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace slip {
namespace {

HWY_EXPORT(copy_vectors);

// Below, the C library does it with vectors of its own.
constexpr std::size_t few = 2048;

}  // namespace

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (to == from || bytes == 0) return;
  if (bytes < few) {
    std::memcpy(to, from, bytes);
    return;
  }
  HWY_DYNAMIC_DISPATCH(copy_vectors)
  (static_cast<std::uint8_t*>(to), static_cast<const std::uint8_t*>(from), bytes);
}

}  // namespace slip
#endif  // HWY_ONCE
