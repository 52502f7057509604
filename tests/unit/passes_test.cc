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
  template <int most = few>
  Terms<T, most> terms() {
    Terms<T, most> result;
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

TYPED_TEST(Passes, AverageAndItsCopiesAreTheReferenceBitForBit) {
  using T = TypeParam;
  for_random_shapes([](std::size_t count, Random& random) {
    Inputs<T> inputs(count, random);
    Guarded<T> out(count, random.below(4));
    std::vector<T> expected(count);
    reference::weighted_average<T>(view(std::span(expected)), inputs.views, inputs.weights);
    Guarded<T>& input = inputs.vectors[random.below(inputs.n)];
    Average<T, many> pass{2, {out.data(), input.data()}, inputs.template terms<many>()};
    run<width<T>>(pass, count, random);
    EXPECT_EQ(values_of(out), expected);
    EXPECT_EQ(values_of(input), expected);
    EXPECT_TRUE(out.red_zones_intact() && input.red_zones_intact());
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
        AverageApply<T, few>{out.data(), gradient.data(), momentum != 0 ? velocity.data() : nullptr,
                             T(0.1), static_cast<T>(momentum), T(1e-2), inputs.terms()},
        count, random);
    EXPECT_EQ(values_of(out), expected);
    EXPECT_EQ(values_of(velocity), expected_velocity);
    EXPECT_TRUE(out.red_zones_intact() && velocity.red_zones_intact());
  });
}

TYPED_TEST(Passes, ARelayIsTheReferenceBitForBitAlsoInPlace) {
  using T = TypeParam;
  for_random_shapes([](std::size_t count, Random& random) {
    Inputs<T> messages(count, random);
    Guarded<T> own(count, random.below(4)), rest(count, random.below(4));
    randomise(own.values(), random);
    randomise(rest.values(), random);
    std::vector<T> expected_own = values_of(own);
    std::vector<std::vector<T>> expected(messages.n, std::vector<T>(count));
    std::vector<VectorView> views;
    for (auto& sum : expected) views.push_back(view(std::span(sum)));
    std::vector<Guarded<T>> sums;
    Relay<T, few> pass{};
    pass.own = pass.average = own.data();
    pass.weight = T(0.3);
    if (random.below(2) == 0) pass.rest = rest.data();
    pass.rest_weight = T(0.2);
    const std::size_t missing = random.below(2 * messages.n);  // which may be none
    if (missing < messages.n) messages.views[missing] = {};
    for (const ConstVectorView& message : messages.views) {
      sums.emplace_back(count, random.below(4));
      pass.message[pass.messages++] = static_cast<const T*>(message.data);
    }
    for (auto& sum : sums) pass.sum[pass.sums++] = sum.data();
    RelayAverage average{view(std::span(expected_own)), 0.3, {}, 0.2};
    if (pass.rest != nullptr) average.rest = view(rest.values());
    reference::relay<T>(views, view(std::span(expected_own)), messages.views, &average);
    run<width<T>>(pass, count, random);
    EXPECT_EQ(values_of(own), expected_own);
    for (std::size_t k = 0; k < messages.n; ++k) {
      EXPECT_EQ(values_of(sums[k]), expected[k]);
      EXPECT_TRUE(sums[k].red_zones_intact());
    }
    EXPECT_TRUE(own.red_zones_intact());
  });
}

TYPED_TEST(Passes, FragmentsAreGatheredAndTheirAveragesScatteredBitForBit) {
  using T = TypeParam;
  for_random_shapes([](std::size_t count, Random& random) {
    Guarded<T> x(count, random.below(4)), gathered(count, random.below(4));
    Guarded<std::uint32_t> order(count, random.below(4));
    randomise(x.values(), random);
    std::iota(order.values().begin(), order.values().end(), 0U);
    auto places = order.values();
    shuffle(places, random);
    std::vector<T> expected(count), expected_x = values_of(x);
    reference::gather<T>(view(std::span(expected)), view(x.values()), order.values());
    run<width<T>>(Gather<T>{gathered.data(), order.data(), x.data()}, count, random);
    EXPECT_EQ(values_of(gathered), expected);
    const std::size_t part = random.below(count + 1);
    Inputs<T> inputs(part, random);
    reference::scatter_average<T>(view(std::span(expected_x)), order.values().first(part),
                                  inputs.views, inputs.weights);
    run<width<T>>(ScatterAverage<T, few>{x.data(), order.data(), inputs.terms()}, part, random);
    EXPECT_EQ(values_of(x), expected_x);
    EXPECT_TRUE(x.red_zones_intact() && gathered.red_zones_intact());
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
  Terms<float, few> terms;
  terms.count = 1;
  terms.input[0] = b.data();
  Average<float, few> together{1, {a.data()}, terms};
  const Items packs = items_of<4>(together, 100);
  EXPECT_EQ(packs.head, 3u);
  EXPECT_EQ(packs.packs, 24u);
  EXPECT_EQ(packs.tail, 1u);
  terms.input[0] = c.data();
  Average<float, few> apart{1, {a.data()}, terms};
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
