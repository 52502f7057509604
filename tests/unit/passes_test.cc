// What the kernels of GPUs do, on the host.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/kernels/cuda/passes_internal.h"
#include "slipstream/kernels/reference.h"

namespace slip::kernels::cuda {
namespace {

/// A vector whose address is `shift` elements off 16 bytes, between two red zones, all poisoned.
template <class T>
class Guarded {
 public:
  Guarded(std::size_t count, std::size_t shift)
      : memory_(zone + shift + count + zone), first_(zone + shift), count_(count) {
    std::memset(memory_.data(), 0xa5, memory_.size() * sizeof(Aligned));
  }

  T* data() { return reinterpret_cast<T*>(memory_.data()) + first_; }
  std::span<T> values() { return {data(), count_}; }
  bool red_zones_intact() {
    const auto* bytes = reinterpret_cast<const unsigned char*>(memory_.data());
    const auto poisoned = [](unsigned char c) { return c == 0xa5; };
    const auto* end = bytes + memory_.size() * sizeof(Aligned);
    return std::all_of(bytes, bytes + first_ * sizeof(T), poisoned) &&
           std::all_of(bytes + (first_ + count_) * sizeof(T), end, poisoned);
  }

 private:
  struct alignas(16) Aligned {
    std::byte bytes[16];
  };
  static constexpr std::size_t zone = 64;
  std::vector<Aligned> memory_;
  std::size_t first_;
  std::size_t count_;
};

template <class T>
void randomise(std::span<T> values, Random& random) {
  for (T& x : values) x = static_cast<T>(random.normal() * std::exp2(random.uniform(-10, 10)));
}

/// All items of a pass, in random order.
template <int W, class Pass>
void run(Pass pass, std::size_t count, Random& random) {
  const Items items = items_of<W>(pass, count);
  EXPECT_EQ(items.head + items.packs * W + items.tail, count);
  std::vector<std::size_t> order(items.count());
  std::iota(order.begin(), order.end(), std::size_t{0});
  shuffle(order, random);
  for (const std::size_t item : order) do_item<W>(pass, items, item);
}

/// Calls body(count, random) for sizes that are multiples of nothing, and from a seed that it
/// shows.
template <class Body>
void for_random_shapes(Body body) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    body(static_cast<std::size_t>(random.below(200)), random);
    if (::testing::Test::HasFailure()) return;
  }
}

template <class T>
class Passes : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Passes, Types);

template <class T>
constexpr int width = 16 / sizeof(T);

template <class T>
std::vector<T> values_of(Guarded<T>& vector) {
  return {vector.values().begin(), vector.values().end()};
}

template <class T>
struct Inputs {
  Inputs(std::size_t count, Random& random) : n(1 + random.below(6)) {
    const std::size_t shift = random.below(4);
    const bool together = random.below(2) == 0;
    for (std::size_t k = 0; k < n; ++k) {
      vectors.emplace_back(count, together ? shift : random.below(4));
      randomise(vectors.back().values(), random);
      weights.push_back(random.uniform(-0.2, 1));
    }
    for (auto& vector : vectors) views.push_back(view(vector.values()));
  }
  Terms<T> terms() {
    Terms<T> result;
    result.count = static_cast<int>(n);
    for (std::size_t k = 0; k < n; ++k) {
      result.input[k] = vectors[k].data();
      result.weight[k] = static_cast<T>(weights[k]);
    }
    return result;
  }

  std::size_t n;
  std::vector<Guarded<T>> vectors;
  std::vector<ConstVectorView> views;
  std::vector<double> weights;
};

TYPED_TEST(Passes, AverageIsTheReferenceBitForBit) {
  using T = TypeParam;
  for_random_shapes([](std::size_t count, Random& random) {
    Inputs<T> inputs(count, random);
    Guarded<T> out(count, random.below(4));
    std::vector<T> expected(count);
    reference::weighted_average<T>(view(std::span(expected)), inputs.views, inputs.weights);
    run<width<T>>(Average<T>{out.data(), inputs.terms()}, count, random);
    EXPECT_EQ(values_of(out), expected);
    EXPECT_TRUE(out.red_zones_intact());
  });
}

TYPED_TEST(Passes, AverageAndApplyIsTheReferenceBitForBitAlsoInPlace) {
  using T = TypeParam;
  for_random_shapes([](std::size_t count, Random& random) {
    Inputs<T> inputs(count, random);
    Guarded<T> velocity(count, random.below(4)), gradient(count, random.below(4));
    Guarded<T> apart(count, random.below(4));
    randomise(velocity.values(), random);
    randomise(gradient.values(), random);
    std::vector<T> expected(count), expected_velocity = values_of(velocity);
    const double momentum = random.below(2) == 0 ? 0 : 0.9;
    const SgdStep step{0.1, momentum, 1e-2, view(std::span(expected_velocity))};
    reference::average_apply<T>(view(std::span(expected)), inputs.views, inputs.weights,
                                view(gradient.values()), step);
    Guarded<T>& out = random.below(2) == 0 ? apart : inputs.vectors[random.below(inputs.n)];
    run<width<T>>(
        AverageApply<T>{out.data(), gradient.data(), momentum != 0 ? velocity.data() : nullptr,
                        T(0.1), static_cast<T>(momentum), T(1e-2), inputs.terms()},
        count, random);
    EXPECT_EQ(values_of(out), expected);
    EXPECT_EQ(values_of(velocity), expected_velocity);
    EXPECT_TRUE(out.red_zones_intact() && velocity.red_zones_intact());
  });
}

TYPED_TEST(Passes, ConversionsAreTheReferenceBitForBit) {
  using T = TypeParam;
  for_random_shapes([](std::size_t count, Random& random) {
    const std::size_t shift = random.below(8);
    Guarded<T> wide(count, shift), back(count, shift);
    Guarded<std::uint16_t> narrow(count, random.below(2) == 0 ? shift : random.below(8));
    randomise(wide.values(), random);
    std::vector<std::uint16_t> expected(count);
    std::vector<T> expected_back(count);
    reference::to_bf16<T>(expected, view(wide.values()));
    run<8>(ToBf16<T>{narrow.data(), wide.data()}, count, random);
    EXPECT_EQ(values_of(narrow), expected);
    reference::from_bf16<T>(view(std::span(expected_back)), expected);
    run<8>(FromBf16<T>{back.data(), narrow.data()}, count, random);
    EXPECT_EQ(values_of(back), expected_back);
    reference::to_fp16<T>(expected, view(wide.values()));
    run<8>(ToFp16<T>{narrow.data(), wide.data()}, count, random);
    EXPECT_EQ(values_of(narrow), expected);
    reference::from_fp16<T>(view(std::span(expected_back)), expected);
    run<8>(FromFp16<T>{back.data(), narrow.data()}, count, random);
    EXPECT_EQ(values_of(back), expected_back);
    EXPECT_TRUE(narrow.red_zones_intact() && back.red_zones_intact());
  });
}

TEST(Items, AreAlignedPacksWhereAllVectorsAreAlignedAtOnce) {
  Guarded<float> a(100, 1), b(100, 1), c(100, 2);
  Terms<float> terms;
  terms.count = 1;
  terms.input[0] = b.data();
  Average<float> together{a.data(), terms};
  const Items packs = items_of<4>(together, 100);
  EXPECT_EQ(packs.head, 3u);
  EXPECT_EQ(packs.packs, 24u);
  EXPECT_EQ(packs.tail, 1u);
  terms.input[0] = c.data();
  Average<float> apart{a.data(), terms};
  EXPECT_EQ(items_of<4>(apart, 100).packs, 0u);
  EXPECT_EQ(items_of<4>(apart, 100).count(), 100u);
}

TEST(Fp16, EveryHalfSurvivesThereAndBack) {
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<std::uint16_t>(h);
    const float x = float_of_fp16(half);
    if (std::isnan(x)) {
      EXPECT_GT(h & 0x7fff, 0x7c00u);
      EXPECT_TRUE(std::isnan(float_of_fp16(fp16_of(x))));
    } else {
      ASSERT_EQ(fp16_of(x), half);
    }
  }
  EXPECT_EQ(float_of_fp16(0x3c00), 1);
  EXPECT_EQ(float_of_fp16(0x0001), 0x1p-24f);
  EXPECT_EQ(float_of_fp16(0x7bff), 65504);
  EXPECT_EQ(float_of_fp16(0xfc00), -std::numeric_limits<float>::infinity());
}

TEST(Fp16, RoundsToTheNearestAndTiesToEven) {
  // Between each half and the next one stands the tie; what is beside it goes to the nearer one.
  for (std::uint16_t half = 0; half < 0x7bff; ++half) {
    const float low = float_of_fp16(half),
                high = float_of_fp16(static_cast<std::uint16_t>(half + 1));
    const float tie = low + (high - low) / 2;
    ASSERT_EQ(fp16_of(tie), half + (half & 1)) << half;
    ASSERT_EQ(fp16_of(std::nextafter(tie, low)), half) << half;
    ASSERT_EQ(fp16_of(std::nextafter(tie, high)), half + 1) << half;
    ASSERT_EQ(fp16_of(-tie), 0x8000 | (half + (half & 1))) << half;
  }
  EXPECT_EQ(fp16_of(65519.996f), 0x7bff);
  EXPECT_EQ(fp16_of(65520), 0x7c00);
  EXPECT_EQ(fp16_of(1e30f), 0x7c00);
}

}  // namespace
}  // namespace slip::kernels::cuda
