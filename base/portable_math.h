#pragma once

/// Functions with one result on every machine, for what must replay. libm's differ in the last bit
/// between processors with and without fused multiply-add; these use only what IEEE 754 fixes:
/// sums, products, quotients and powers of two. Relative errors are below 4 units in the last
/// place, of `cos_pi` below 2^-52 absolute.
namespace slip::portable {

/// The natural logarithm of a normal x > 0.
double log(double x);

/// log(1 + x) where 0 <= x <= 1, as precise where x is small.
double log1p(double x);

/// e to the power of x: 0 below the smallest normal number, infinity above the largest.
double exp(double x);

/// The cosine of pi * x, where 0 <= x <= 2.
double cos_pi(double x);

/// `base` to the power of a whole number.
double power(double base, unsigned long long exponent);

}  // namespace slip::portable
