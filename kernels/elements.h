#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SLIP_HOST_DEVICE __host__ __device__
#else
#define SLIP_HOST_DEVICE
#endif

/// Conversions of one element, the same on the host and on GPUs.
namespace slip::kernels {

/// The bits of a float.
SLIP_HOST_DEVICE inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
/// The float of these bits.
SLIP_HOST_DEVICE inline float float_of_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/// bfloat16, rounded to nearest, ties to even; NaN stays NaN.
SLIP_HOST_DEVICE inline std::uint16_t bf16_of(float x) {
  const std::uint32_t bits = bits_of(x);
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  const std::uint32_t rounded = is_nan ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
  return static_cast<std::uint16_t>(rounded >> 16);
}
/// Exactly the value of a bfloat16.
SLIP_HOST_DEVICE inline float float_of_bf16(std::uint16_t x) {
  return float_of_bits(std::uint32_t{x} << 16);
}

/// IEEE half precision, rounded to nearest, ties to even; NaN stays NaN, and what is too large is
/// infinite.
SLIP_HOST_DEVICE inline std::uint16_t fp16_of(float x) {
  const std::uint32_t bits = bits_of(x);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  const std::uint32_t size = bits & 0x7fffffff;
  std::uint32_t result;
  if (size > 0x7f800000) {  // NaN
    result = 0x7e00 | (size >> 13 & 0x3ff);
  } else if (size >= 0x477ff000) {  // from 65520 on it is infinite
    result = 0x7c00;
  } else if (size >= 0x38800000) {  // from 2^-14 on it is normal
    result = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
  } else {  // a multiple of 2^-24: this sum leaves it, rounded, in the last bits
    result = bits_of(float_of_bits(size) + 0.5f) - 0x3f000000;
  }
  return static_cast<std::uint16_t>(sign | result);
}
/// Exactly the value of a half.
SLIP_HOST_DEVICE inline float float_of_fp16(std::uint16_t x) {
  const std::uint32_t sign = std::uint32_t{x} << 16 & 0x80000000;
  const std::uint32_t size = x & 0x7fff;
  if (size >= 0x7c00) return float_of_bits(sign | 0x7f800000 | size << 13);  // infinite, or NaN
  if (size >= 0x400) return float_of_bits(sign | ((size << 13) + 0x38000000));
  return float_of_bits(sign | bits_of(static_cast<float>(size) * 0x1p-24f));
}

}  // namespace slip::kernels
