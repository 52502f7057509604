#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "instruction_sets.h"
#include "slipstream/base/random.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/kernels/reference.h"

namespace slip::kernels {
namespace {

template <class T>
class Bf16Test : public OnEveryTarget {
 protected:
  static std::vector<std::uint16_t> packed(const std::vector<T>& x) {
    std::vector<std::uint16_t> out(x.size());
    to_bf16(out, view(std::span<const T>(x)));
    return out;
  }
  static std::vector<T> unpacked(const std::vector<std::uint16_t>& x) {
    std::vector<T> out(x.size());
    from_bf16(view(std::span(out)), x);
    return out;
  }
};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Bf16Test, Types);

/// Every bfloat16.
std::vector<std::uint16_t> all_bf16() {
  std::vector<std::uint16_t> all(1 << 16);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  return all;
}

TYPED_TEST(Bf16Test, EveryNumberComesBackAsItWas) {
  this->on_every_target([] {
    const auto all = all_bf16();
    const auto back = Bf16Test<TypeParam>::packed(Bf16Test<TypeParam>::unpacked(all));
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool is_nan = (all[i] & 0x7fff) > 0x7f80;
      ASSERT_EQ(back[i], is_nan ? all[i] | 0x40 : all[i]);
    }
  });
}

TYPED_TEST(Bf16Test, IsTheReferenceBitForBitOnEveryInstructionSet) {
  Random random(5);
  std::vector<TypeParam> x(100'003);
  for (TypeParam& value : x) {
    const auto bits = static_cast<std::uint32_t>(random.below(std::uint64_t{1} << 32));
    value = static_cast<TypeParam>(std::bit_cast<float>(bits));
    if (std::is_same_v<TypeParam, double> && random.below(4) == 0) value *= 1.0000001;
  }
  // Ties, and what rounds to infinity.
  for (std::uint32_t i = 0; i < 1000; ++i) {
    x[i] = static_cast<TypeParam>(std::bit_cast<float>(0x3f800000 + (i << 16) + 0x8000));
  }
  x[1000] = std::numeric_limits<TypeParam>::max();
  std::vector<std::uint16_t> expected(x.size());
  reference::to_bf16<TypeParam>(expected, view(std::span<const TypeParam>(x)));
  this->on_every_target([&] {
    EXPECT_EQ(Bf16Test<TypeParam>::packed(x), expected);
    std::vector<TypeParam> widened(x.size());
    reference::from_bf16<TypeParam>(view(std::span(widened)), expected);
    const auto back = Bf16Test<TypeParam>::unpacked(expected);
    EXPECT_EQ(std::memcmp(back.data(), widened.data(), x.size() * sizeof(TypeParam)), 0);
  });
}

TYPED_TEST(Bf16Test, ErrorsStayWithinTheDocumentedBound) {
  Random random(6);
  std::vector<TypeParam> x(100'000);
  for (TypeParam& value : x) {
    value = static_cast<TypeParam>(random.uniform(-1, 1) * std::exp2(random.uniform(-140, 127)));
  }
  const auto rounded = Bf16Test<TypeParam>::unpacked(Bf16Test<TypeParam>::packed(x));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double size = std::abs(static_cast<double>(x[i]));
    const double bound = size < 0x1p-126 ? 0x1p-126 : 0x1p-8 * (1 + 0x1p-16) * size;
    ASSERT_LE(std::abs(static_cast<double>(rounded[i]) - static_cast<double>(x[i])), bound);
  }
}

TYPED_TEST(Bf16Test, UnpacksWhereItLies) {
  for (const std::size_t count : {0, 1, 7, 8, 1001}) {
    this->on_every_target([count] {
      std::vector<TypeParam> x(count);
      for (std::size_t i = 0; i < count; ++i) x[i] = static_cast<TypeParam>(i % 250);
      const auto small = Bf16Test<TypeParam>::packed(x);
      std::vector<TypeParam> memory(count);
      auto* end = reinterpret_cast<std::uint16_t*>(memory.data() + count) - count;
      if (count > 0) std::memcpy(end, small.data(), count * sizeof *end);
      from_bf16(view(std::span(memory)), {end, count});
      EXPECT_EQ(memory, x);
    });
  }
}

}  // namespace
}  // namespace slip::kernels
