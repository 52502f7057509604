#include "slipstream/kernels/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "instruction_sets.h"
#include "slipstream/base/random.h"
#include "slipstream/kernels/reference.h"

namespace slip::kernels {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr std::size_t counts[] = {0, 1, 3, 17, 1000, 4099};
constexpr std::size_t most_inputs = 20;

/// A vector between two red zones, everything poisoned at first. It starts `shift` elements off the
/// alignment that memory comes with.
template <class T>
class Guarded {
 public:
  explicit Guarded(std::size_t count, std::size_t shift = 1)
      : zone_(red_zone + shift), count_(count), all_(zone_ + count + red_zone, poison) {}

  std::span<T> values() { return std::span(all_).subspan(zone_, count_); }
  VectorView view() { return slip::view(values()); }
  ConstVectorView const_view() { return view(); }

  bool red_zones_intact() const {
    const auto poisoned = [](T x) { return x == poison; };
    return std::all_of(all_.begin(), all_.begin() + zone_, poisoned) &&
           std::all_of(all_.end() - red_zone, all_.end(), poisoned);
  }

 private:
  static constexpr std::size_t red_zone = 64;
  static constexpr T poison = T(-7.25e30);

  std::size_t zone_;
  std::size_t count_;
  std::vector<T> all_;
};

/// Random numbers of either sign and very different sizes.
template <class T>
Guarded<T> random_vector(std::size_t count, Random& random) {
  Guarded<T> vector(count, random.below(8));
  for (T& x : vector.values()) {
    x = static_cast<T>(random.normal() * std::exp2(random.uniform(-10, 10)));
  }
  return vector;
}

std::vector<double> random_weights(std::size_t n, Random& random) {
  std::vector<double> weights(n);
  for (double& weight : weights) weight = random.uniform(-0.2, 1);
  return weights;
}

/// n random inputs and their weights.
template <class T>
struct Inputs {
  Inputs(std::size_t n, std::size_t count, Random& random) : weights(random_weights(n, random)) {
    for (std::size_t k = 0; k < n; ++k) vectors.push_back(random_vector<T>(count, random));
    for (Guarded<T>& vector : vectors) views.push_back(vector.const_view());
  }

  std::vector<Guarded<T>> vectors;
  std::vector<ConstVectorView> views;
  std::vector<double> weights;
};

template <class T>
bool same_bits(std::span<T> a, std::span<T> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

template <class T>
Guarded<T> copy_of(Guarded<T>& x) {
  Guarded<T> result(x.values().size());
  std::copy(x.values().begin(), x.values().end(), result.values().begin());
  return result;
}

/// gamma(m) of kernels.h.
template <class T>
long double gamma(int m) {
  const long double mu = m * static_cast<long double>(std::numeric_limits<T>::epsilon()) / 2;
  return mu / (1 - mu);
}

/// Typed over the element types.
template <class T>
class KernelsTest : public OnEveryTarget {
 protected:
  /// Also for every count and 1 to 20 inputs, with random numbers that depend on these only.
  template <class Body>
  void on_every_target_and_shape(Body body) {
    on_every_target([&] {
      for (const std::size_t count : counts) {
        for (std::size_t n = 1; n <= most_inputs; ++n) {
          const std::uint64_t seed = key({count, n});
          SCOPED_TRACE("count " + std::to_string(count) + ", inputs " + std::to_string(n) +
                       ", seed " + std::to_string(seed));
          Random random(seed);
          body(n, count, random);
          if (this->HasFailure()) return;
        }
      }
    });
  }
};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(KernelsTest, Types);

TYPED_TEST(KernelsTest, AverageIsTheReferenceBitForBitOnEveryInstructionSet) {
  using T = TypeParam;
  this->on_every_target_and_shape([](std::size_t n, std::size_t count, Random& random) {
    Inputs<T> inputs(n, count, random);
    Guarded<T> out(count, random.below(8)), expected(count);
    weighted_average(out.view(), inputs.views, inputs.weights);
    reference::weighted_average<T>(expected.view(), inputs.views, inputs.weights);
    EXPECT_TRUE(same_bits(out.values(), expected.values()));
    EXPECT_TRUE(out.red_zones_intact());
  });
}

TYPED_TEST(KernelsTest, AverageMayOverwriteAnyOfItsInputs) {
  using T = TypeParam;
  this->on_every_target_and_shape([](std::size_t n, std::size_t count, Random& random) {
    Inputs<T> inputs(n, count, random);
    Guarded<T> expected(count);
    reference::weighted_average<T>(expected.view(), inputs.views, inputs.weights);
    Guarded<T>& out = inputs.vectors[random.below(n)];
    weighted_average(out.view(), inputs.views, inputs.weights);
    EXPECT_TRUE(same_bits(out.values(), expected.values()));
    EXPECT_TRUE(out.red_zones_intact());
  });
}

TYPED_TEST(KernelsTest, AnAverageIsTheSameInEveryCopy) {
  using T = TypeParam;
  this->on_every_target_and_shape([](std::size_t n, std::size_t count, Random& random) {
    Inputs<T> inputs(n, count, random);
    Guarded<T> expected(count);
    reference::weighted_average<T>(expected.view(), inputs.views, inputs.weights);
    // As two workers average in place: one input is the output, and another is a copy.
    std::vector<VectorView> copies;
    for (std::size_t k = 1; k < n; ++k) copies.push_back(inputs.vectors[k].view());
    weighted_average(inputs.vectors[0].view(), inputs.views, inputs.weights, copies);
    for (Guarded<T>& vector : inputs.vectors) {
      EXPECT_TRUE(same_bits(vector.values(), expected.values()));
      EXPECT_TRUE(vector.red_zones_intact());
    }
  });
}

TYPED_TEST(KernelsTest, ApplyIsTheReferenceBitForBitOnEveryInstructionSet) {
  using T = TypeParam;
  this->on_every_target_and_shape([](std::size_t n, std::size_t count, Random& random) {
    Inputs<T> inputs(n, count, random);
    Guarded<T> gradient = random_vector<T>(count, random);
    Guarded<T> velocity = random_vector<T>(count, random);
    Guarded<T> out(count, random.below(8));
    Guarded<T> expected(count), expected_velocity = copy_of(velocity);
    SgdStep step{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-2};
    step.velocity = expected_velocity.view();
    reference::average_apply<T>(expected.view(), inputs.views, inputs.weights,
                                gradient.const_view(), step);
    step.velocity = velocity.view();
    average_apply(out.view(), inputs.views, inputs.weights, gradient.const_view(), step);
    EXPECT_TRUE(same_bits(out.values(), expected.values()));
    EXPECT_TRUE(same_bits(velocity.values(), expected_velocity.values()));
    EXPECT_TRUE(out.red_zones_intact());
    EXPECT_TRUE(velocity.red_zones_intact());
  });
}

TYPED_TEST(KernelsTest, ApplyWithoutMomentumNeedsNoVelocityAndMayOverwriteItsOwnVector) {
  using T = TypeParam;
  this->on_every_target_and_shape([](std::size_t n, std::size_t count, Random& random) {
    Inputs<T> inputs(n, count, random);
    Guarded<T> gradient = random_vector<T>(count, random);
    Guarded<T> expected(count);
    const SgdStep step{.learning_rate = 0.1, .weight_decay = 1e-2};
    reference::average_apply<T>(expected.view(), inputs.views, inputs.weights,
                                gradient.const_view(), step);
    Guarded<T>& own = inputs.vectors[0];
    average_apply(own.view(), inputs.views, inputs.weights, gradient.const_view(), step);
    EXPECT_TRUE(same_bits(own.values(), expected.values()));
    EXPECT_TRUE(own.red_zones_intact());
  });
}

TYPED_TEST(KernelsTest, AxpyIsTheReferenceBitForBitOnEveryInstructionSet) {
  using T = TypeParam;
  this->on_every_target([] {
    for (const std::size_t count : counts) {
      Random random(count);
      Guarded<T> x = random_vector<T>(count, random), y = random_vector<T>(count, random);
      Guarded<T> expected = copy_of(y);
      reference::axpy<T>(expected.view(), -0.3, x.const_view());
      axpy(y.view(), -0.3, x.const_view());
      EXPECT_TRUE(same_bits(y.values(), expected.values())) << "count " << count;
      EXPECT_TRUE(y.red_zones_intact()) << "count " << count;
    }
  });
}

/// Some messages missing, the average wanted or not, with and without a rest, in place or not.
TYPED_TEST(KernelsTest, RelayIsTheReferenceBitForBitOnEveryInstructionSet) {
  using T = TypeParam;
  this->on_every_target_and_shape([](std::size_t n, std::size_t count, Random& random) {
    Inputs<T> messages(n, count, random);
    for (ConstVectorView& message : messages.views) {
      if (random.below(4) == 0) message.data = nullptr;
    }
    Guarded<T> own = random_vector<T>(count, random), rest = random_vector<T>(count, random);
    Guarded<T> expected_average(count), elsewhere(count);
    std::vector<Guarded<T>> sums, expected_sums;
    std::vector<VectorView> sum_views, expected_views;
    for (std::size_t k = 0; k < n; ++k) {
      sums.emplace_back(count, random.below(8));
      expected_sums.emplace_back(count);
    }
    for (Guarded<T>& sum : sums) sum_views.push_back(sum.view());
    for (Guarded<T>& sum : expected_sums) expected_views.push_back(sum.view());
    Guarded<T>& out = random.below(2) == 0 ? own : elsewhere;
    RelayAverage average{.out = expected_average.view(), .weight = 0.3, .rest_weight = 0.7};
    if (random.below(2) == 0) average.rest = rest.const_view();
    const bool wanted = random.below(4) != 0;

    reference::relay<T>(expected_views, own.const_view(), messages.views,
                        wanted ? &average : nullptr);
    average.out = out.view();
    relay(sum_views, own.const_view(), messages.views, wanted ? &average : nullptr);
    for (std::size_t k = 0; k < n; ++k) {
      EXPECT_TRUE(same_bits(sums[k].values(), expected_sums[k].values())) << "sum " << k;
      EXPECT_TRUE(sums[k].red_zones_intact()) << "sum " << k;
    }
    if (wanted) {
      EXPECT_TRUE(same_bits(out.values(), expected_average.values()));
    }
    EXPECT_TRUE(out.red_zones_intact());
  });
}

TYPED_TEST(KernelsTest, FragmentsAreGatheredAndTheirAveragesScatteredAsByPlainLoops) {
  using T = TypeParam;
  this->on_every_target_and_shape([](std::size_t n, std::size_t count, Random& random) {
    std::vector<std::uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0U);
    shuffle(order, random);
    Guarded<T> x = random_vector<T>(count, random), gathered(count, random.below(8));
    Guarded<T> expected(count), expected_x(count);
    copy(expected_x.view(), x.view());
    gather(gathered.view(), x.view(), order);
    reference::gather<T>(expected.view(), x.view(), order);
    EXPECT_TRUE(same_bits(gathered.values(), expected.values()));
    EXPECT_TRUE(gathered.red_zones_intact());
    const std::size_t part = random.below(count + 1);
    Inputs<T> inputs(n, part, random);
    scatter_average(x.view(), std::span(order).first(part), inputs.views, inputs.weights);
    reference::scatter_average<T>(expected_x.view(), std::span(order).first(part), inputs.views,
                                  inputs.weights);
    EXPECT_TRUE(same_bits(x.values(), expected_x.values()));
    EXPECT_TRUE(x.red_zones_intact());
  });
}

TYPED_TEST(KernelsTest, RelayMatchesARoundDoneByHand) {
  using T = TypeParam;
  this->on_every_target([] {
    std::vector<T> own{1, 2}, left{10, 20}, right{100, 200}, to_left(2), to_right(2), rest{8, 8};
    const std::vector<VectorView> sums{view(std::span(to_left)), view(std::span(to_right))};
    const std::vector<ConstVectorView> messages{view(std::span(left)), view(std::span(right))};
    const RelayAverage average{.out = view(std::span(own)),
                               .weight = 0.25,
                               .rest = view(std::span(rest)),
                               .rest_weight = 0.25};
    relay(sums, view(std::span(own)), messages, &average);
    EXPECT_THAT(to_left, ElementsAre(T(101), T(202)));
    EXPECT_THAT(to_right, ElementsAre(T(11), T(22)));
    EXPECT_THAT(own, ElementsAre(T(29.75), T(57.5)));
  });
}

TYPED_TEST(KernelsTest, ExtremeNumbersAreTreatedAlikeOnEveryInstructionSet) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  const std::vector<T> extremes{T(0),
                                T(-0.0),
                                Limits::denorm_min(),
                                Limits::min(),
                                Limits::max(),
                                -Limits::max(),
                                Limits::infinity(),
                                -Limits::infinity(),
                                Limits::quiet_NaN(),
                                T(1)};
  std::vector<T> a, b;  // all pairs, several times over so that whole vectors are filled
  for (int repeat = 0; repeat < 3; ++repeat) {
    for (const T x : extremes) {
      for (const T y : extremes) {
        a.push_back(x);
        b.push_back(y);
      }
    }
  }
  const std::vector<ConstVectorView> inputs{view(std::span(a)), view(std::span(b))};
  const std::vector<double> weights{0.75, -0.5};
  std::vector<T> expected(a.size()), out(a.size());
  reference::weighted_average<T>(view(std::span(expected)), inputs, weights);
  this->on_every_target([&] {
    weighted_average(view(std::span(out)), inputs, weights);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const bool both_nan = std::isnan(out[i]) && std::isnan(expected[i]);
      EXPECT_TRUE(both_nan || std::memcmp(&out[i], &expected[i], sizeof(T)) == 0)
          << "0.75 * " << a[i] << " - 0.5 * " << b[i] << " gave " << out[i];
    }
  });
}

TYPED_TEST(KernelsTest, ProductsAreRoundedBeforeTheyAreAdded) {
  using T = TypeParam;
  // a * a needs twice the bits of T: a fused multiply-add would leave the rounding error.
  const T a = 1 + std::numeric_limits<T>::epsilon() * 3;
  const T square = a * a;
  this->on_every_target([&] {
    std::vector<T> negative(67, -square), x(67, a), out(67, T(1));
    const std::vector<ConstVectorView> inputs{view(std::span(negative)), view(std::span(x))};
    weighted_average(view(std::span(out)), inputs, std::vector<double>{1, a});
    EXPECT_THAT(out, Each(T(0)));
    axpy(view(std::span(negative)), a, view(std::span<const T>(x)));
    EXPECT_THAT(negative, Each(T(0)));
  });
}

TYPED_TEST(KernelsTest, ApplyMatchesAStepDoneByHand) {
  using T = TypeParam;
  this->on_every_target([] {
    std::vector<T> own{2, 4}, other{6, 8}, gradient{1, -1}, velocity{8, 0};
    const std::vector<ConstVectorView> inputs{view(std::span(own)), view(std::span(other))};
    average_apply(view(std::span(own)), inputs, std::vector<double>{0.75, 0.25},
                  view(std::span<const T>(gradient)),
                  {.learning_rate = 0.5,
                   .momentum = 0.25,
                   .weight_decay = 0.5,
                   .velocity = view(std::span(velocity))});
    EXPECT_THAT(velocity, ElementsAre(T(4), T(1)));  // 2 + (1 + 1), 0 + (-1 + 2)
    EXPECT_THAT(own, ElementsAre(T(1), T(4.5)));     // 3 - 2, 5 - 0.5
  });
}

TYPED_TEST(KernelsTest, ErrorsAgainstTheExactSumsStayWithinTheDocumentedBounds) {
  using T = TypeParam;
  const SgdStep step{.learning_rate = 0.3, .momentum = 0.9, .weight_decay = 0.01};
  this->on_every_target_and_shape([&](std::size_t n, std::size_t count, Random& random) {
    Inputs<T> inputs(n, count, random);
    Guarded<T> gradient = random_vector<T>(count, random);
    Guarded<T> velocity = random_vector<T>(count, random), velocity_before = copy_of(velocity);
    Guarded<T> average(count), applied(count);
    weighted_average(average.view(), inputs.views, inputs.weights);
    SgdStep with_velocity = step;
    with_velocity.velocity = velocity.view();
    average_apply(applied.view(), inputs.views, inputs.weights, gradient.const_view(),
                  with_velocity);

    std::size_t wrong = 0;
    for (std::size_t i = 0; i < count; ++i) {
      long double sum = 0, size = 0;
      for (std::size_t k = 0; k < n; ++k) {
        const long double term = inputs.weights[k] * (long double){inputs.vectors[k].values()[i]};
        sum += term;
        size += std::abs(term);
      }
      const long double moved = step.momentum * (long double){velocity_before.values()[i]};
      const long double decayed = step.weight_decay * (long double){inputs.vectors[0].values()[i]};
      const long double g = gradient.values()[i], v = moved + g + decayed;
      const long double v_size = std::abs(moved) + std::abs(g) + std::abs(decayed);
      const long double x = sum - step.learning_rate * v;
      const long double x_size = size + step.learning_rate * v_size;
      const int roundings = static_cast<int>(n);
      wrong += std::abs(average.values()[i] - sum) > gamma<T>(roundings + 1) * size;
      wrong += std::abs(velocity.values()[i] - v) > gamma<T>(4) * v_size;
      wrong += std::abs(applied.values()[i] - x) > gamma<T>(roundings + 6) * x_size;
    }
    EXPECT_EQ(wrong, 0u);
  });
}

TYPED_TEST(KernelsTest, AxpyErrorStaysWithinTheDocumentedBound) {
  using T = TypeParam;
  Random random(1);
  Guarded<T> x = random_vector<T>(4099, random), y = random_vector<T>(4099, random);
  Guarded<T> before = copy_of(y);
  const double a = -0.3;
  axpy(y.view(), a, x.const_view());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < 4099; ++i) {
    const long double product = a * (long double){x.values()[i]};
    const long double old = before.values()[i];
    wrong += std::abs(y.values()[i] - (old + product)) >
             gamma<T>(3) * (std::abs(old) + std::abs(product));
  }
  EXPECT_EQ(wrong, 0u);
}

TYPED_TEST(KernelsTest, CopyCopiesEveryElementAndNothingElse) {
  using T = TypeParam;
  for (const std::size_t count : counts) {
    Random random(count);
    Guarded<T> x = random_vector<T>(count, random), out(count);
    copy(out.view(), x.const_view());
    EXPECT_TRUE(same_bits(out.values(), x.values())) << "count " << count;
    EXPECT_TRUE(out.red_zones_intact()) << "count " << count;
    copy(out.view(), out.const_view());
    EXPECT_TRUE(same_bits(out.values(), x.values())) << "onto itself, count " << count;
  }
}

TEST(KernelsNullTest, EmptyVectorsMayBeNull) {
  const VectorView nothing;
  const std::vector<ConstVectorView> inputs{nothing, nothing};
  const std::vector<double> weights{0.5, 0.5};
  weighted_average(nothing, inputs, weights);
  average_apply(nothing, inputs, weights, nothing, {.momentum = 0.9});
  axpy(nothing, 2, nothing);
  copy(nothing, nothing);
  const std::byte byte{1};
  EXPECT_EQ(checksum({}), checksum(std::span(&byte, 0)));
}

TEST(TargetNameTest, IsTheBestInstructionSetOfThisProcessor) {
  hwy::GetChosenTarget().DeInit();
  EXPECT_STREQ(target_name(), hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()));
}

class ChecksumTest : public ::testing::Test {
 protected:
  static std::uint64_t of(const std::vector<double>& values) {
    return checksum(std::as_bytes(std::span(values)));
  }
};

TEST_F(ChecksumTest, ChangesWithEveryBitOfEveryByte) {
  for (std::size_t size = 1; size <= 19; ++size) {
    std::vector<std::byte> bytes(size, std::byte{0x5a});
    const std::uint64_t before = checksum(bytes);
    for (std::size_t bit = 0; bit < 8 * size; ++bit) {
      const std::byte mask{static_cast<unsigned char>(1u << bit % 8)};
      bytes[bit / 8] ^= mask;
      EXPECT_NE(checksum(bytes), before) << "size " << size << ", bit " << bit;
      bytes[bit / 8] ^= mask;
    }
    EXPECT_EQ(checksum(bytes), before);
  }
}

TEST_F(ChecksumTest, TellsVectorsApartThatDifferInOrderSignOrLength) {
  EXPECT_NE(of({1, 2, 3}), of({3, 2, 1}));
  EXPECT_NE(of({1, 2, 3, 4}), of({-1, -2, -3, -4}));
  EXPECT_NE(of({1, 2}), of({1, 2, 0}));
  EXPECT_NE(of({}), of({0}));
}

TEST_F(ChecksumTest, DoesNotDependOnWhereTheBytesLie) {
  std::vector<std::byte> bytes(100, std::byte{3});
  const std::uint64_t expected = checksum(std::span(bytes).first(67));
  for (std::size_t shift = 1; shift < 9; ++shift) {
    EXPECT_EQ(checksum(std::span(bytes).subspan(shift, 67)), expected) << "shift " << shift;
  }
}

}  // namespace
}  // namespace slip::kernels
