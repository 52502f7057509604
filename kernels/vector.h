#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "slipstream/gpu/device.h"

namespace slip {

/// Type of a vector's elements.
enum class Dtype : std::uint8_t { float32, float64 };

/// Bytes of an element.
constexpr std::size_t size_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 8; }

/// The name of float or double.
template <class T>
constexpr Dtype dtype_of() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
  return std::is_same_v<T, float> ? Dtype::float32 : Dtype::float64;
}

/// A parameter vector whose element type is known at run time. Owns nothing. The elements of one in
/// a GPU's memory are out of the host's reach.
template <class Void>
struct BasicVectorView {
  Void* data = nullptr;
  std::size_t count = 0;  // elements, not bytes
  Dtype dtype = Dtype::float32;
  int device = gpu::host;  // whose memory it is: the GPU of that number's, or the host's

  std::size_t bytes() const { return count * size_of(dtype); }
  bool on_gpu() const { return device != gpu::host; }

  /// The elements as T, which must be the type that `dtype` names.
  template <class T>
  auto as() const {
    using Element = std::conditional_t<std::is_const_v<Void>, const T, T>;
    assert(dtype == dtype_of<T>());
    return std::span<Element>(static_cast<Element*>(data), count);
  }

  operator BasicVectorView<const void>() const requires(!std::is_const_v<Void>) {
    return {data, count, dtype, device};
  }

  /// Elements [first, first + n).
  BasicVectorView slice(std::size_t first, std::size_t n) const {
    using Byte = std::conditional_t<std::is_const_v<Void>, const std::byte, std::byte>;
    return {static_cast<Byte*>(data) + first * size_of(dtype), n, dtype, device};
  }
};

/// A vector that may be written.
using VectorView = BasicVectorView<void>;
/// One that may not.
using ConstVectorView = BasicVectorView<const void>;

/// A span of floats or doubles as a vector whose type is known at run time.
template <class T>
VectorView view(std::span<T> values) {
  return {values.data(), values.size(), dtype_of<T>()};
}
/// The same of one that is not to be written.
template <class T>
ConstVectorView view(std::span<const T> values) {
  return {values.data(), values.size(), dtype_of<T>()};
}

}  // namespace slip
