#include "slipstream/base/portable_math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "slipstream/base/random.h"

namespace slip {
namespace {

constexpr double epsilon = std::numeric_limits<double>::epsilon();

/// Calls `check(x)` for random x of [low, high).
template <class Check>
void for_each_between(double low, double high, Check check) {
  Random random(1);
  for (int i = 0; i < 100'000; ++i) check(random.uniform(low, high));
}

TEST(PortableMath, AgreesWithTheMathematicalLibrary) {
  const auto near = [](double value, double reference) {
    ASSERT_NEAR(value, reference, 4 * epsilon * std::abs(reference));
  };
  for_each_between(1e-300, 1, [&](double x) { near(portable::log(x), std::log(x)); });
  for_each_between(0.9, 1.1, [&](double x) { near(portable::log(x), std::log(x)); });
  for_each_between(-300, 300, [&](double x) {
    near(portable::log(std::exp2(x)), std::log(std::exp2(x)));
    near(portable::exp(x), std::exp(x));
  });
  for_each_between(
      -60, 0, [&](double x) { near(portable::log1p(std::exp2(x)), std::log1p(std::exp2(x))); });
  for_each_between(0, 2, [](double x) {
    ASSERT_NEAR(portable::cos_pi(x), std::cos(std::numbers::pi * x), 8 * epsilon) << x;
  });
}

TEST(PortableMath, HasTheValuesThatAreKnownExactly) {
  EXPECT_EQ(portable::log(1), 0);
  EXPECT_EQ(portable::log1p(0), 0);
  EXPECT_EQ(portable::exp(0), 1);
  EXPECT_EQ(portable::exp(-1000), 0);
  EXPECT_EQ(portable::exp(1000), std::numeric_limits<double>::infinity());
  EXPECT_EQ(portable::cos_pi(0), 1);
  EXPECT_EQ(portable::cos_pi(0.5), 0);
  EXPECT_EQ(portable::cos_pi(1), -1);
  EXPECT_EQ(portable::cos_pi(1.5), 0);
  EXPECT_EQ(portable::cos_pi(2), 1);
  EXPECT_EQ(portable::power(0.5, 10), 0x1p-10);
  EXPECT_EQ(portable::power(3, 0), 1);
}

// What a run's history rests on: every bit, on every processor and from every compiler.
TEST(PortableMath, GivesTheSameBitsEverywhere) {
  std::uint64_t hash = 0;
  const auto note = [&](double value) { hash = mix(hash ^ std::bit_cast<std::uint64_t>(value)); };
  for_each_between(0, 2, [&](double x) {
    note(portable::log(x + 1e-9));
    note(portable::log1p(x / 2));
    note(portable::exp(100 * (x - 1)));
    note(portable::cos_pi(x));
    note(portable::power(x, 7));
  });
  EXPECT_EQ(hash, 14738194131007625183u);
}

}  // namespace
}  // namespace slip
