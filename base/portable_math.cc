#include "slipstream/base/portable_math.h"

#include <cmath>
#include <limits>
#include <numbers>

namespace slip::portable {
namespace {

// ln 2 in two parts, so that whole multiples of the first, up to 2^11 of them, are exact.
constexpr double ln2_high = 0x1.62e42fefa38p-1;
constexpr double ln2_low = 0x1.ef35793c7673p-45;

/// For |x| <= pi / 4 the Taylor series of the cosine (from power 0) or of the sine (from power 1).
double series(double x, int power) {
  double term = power == 0 ? 1 : x, sum = 0;
  for (int n = power; n <= 20; n += 2) {
    sum += term;
    term *= -x * x / ((n + 1) * (n + 2));
  }
  return sum;
}

}  // namespace

double log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < std::numbers::sqrt2 / 2) {
    m *= 2;
    --exponent;
  }
  // log m = 2 artanh s.
  const double s = (m - 1) / (m + 1), z = s * s;
  double sum = 0;
  for (int odd = 23; odd >= 3; odd -= 2) sum = (sum + 1.0 / odd) * z;
  return exponent * ln2_high + (exponent * ln2_low + (2 * s * sum + 2 * s));
}

double log1p(double x) {
  // What 1 + x loses of x by rounding is made up for by the quotient (Kahan).
  const double rounded = 1 + x;
  return rounded == 1 ? x : log(rounded) * x / (rounded - 1);
}

double exp(double x) {
  if (x < -708) return 0;
  if (x > 710) return std::numeric_limits<double>::infinity();
  const double k = std::floor(x / std::numbers::ln2 + 0.5);
  const double r = (x - k * ln2_high) - k * ln2_low;
  double sum = 1;
  for (int n = 14; n >= 1; --n) sum = 1 + sum * r / n;
  return std::ldexp(sum, static_cast<int>(k));
}

double cos_pi(double x) {
  if (x > 1) x = 2 - x;
  if (x > 0.5) return -cos_pi(1 - x);
  constexpr double pi = std::numbers::pi;
  return x <= 0.25 ? series(pi * x, 0) : series(pi * (0.5 - x), 1);
}

double power(double base, unsigned long long exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base) {
    if (exponent & 1) result *= base;
  }
  return result;
}

}  // namespace slip::portable
