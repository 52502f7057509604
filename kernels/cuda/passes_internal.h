#pragma once

#include <cstddef>
#include <cstdint>

#include "slipstream/kernels/elements.h"

#pragma GCC visibility push(hidden)

/// What the kernels on GPUs do, element by element: plain code that the host compiles, too, so that
/// it is tested everywhere. A pass is a kernel's parameter; `at<W>(i)` does the elements [i, i + W)
/// and reads all that it needs of them before it writes. `each_vector` calls its argument with the
/// address of each vector. Operations and their order are those of reference.h.
namespace slip::kernels::cuda {

/// W elements that are read or written at once, 16 bytes at a time.
template <class T, int W>
struct alignas(W * sizeof(T) < 16 ? W * sizeof(T) : 16) Pack {
  T at[W];
};

/// To and from memory that is aligned to a pack. The compiler for GPUs takes 16 bytes at a time
/// only where it is told to.
template <int W, class T>
SLIP_HOST_DEVICE inline Pack<T, W> load(const T* from) {
  Pack<T, W> pack;
#ifdef __CUDA_ARCH__
  if constexpr (sizeof pack % sizeof(uint4) == 0) {
    for (std::size_t q = 0; q < sizeof pack / sizeof(uint4); ++q) {
      reinterpret_cast<uint4*>(&pack)[q] = reinterpret_cast<const uint4*>(from)[q];
    }
    return pack;
  }
#endif
  pack = *reinterpret_cast<const Pack<T, W>*>(from);
  return pack;
}
template <int W, class T>
SLIP_HOST_DEVICE inline void store(T* to, const Pack<T, W>& pack) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof pack % sizeof(uint4) == 0) {
    for (std::size_t q = 0; q < sizeof pack / sizeof(uint4); ++q) {
      __stwb(reinterpret_cast<uint4*>(to) + q, reinterpret_cast<const uint4*>(&pack)[q]);
    }
    return;
  }
#endif
  *reinterpret_cast<Pack<T, W>*>(to) = pack;
}

/// The inputs of one average: what fits into a kernel's 4 KB of parameters.
constexpr int most_inputs = 240;

template <class T>
struct Terms {
  int count;
  const T* input[most_inputs];
  T weight[most_inputs];

  template <int W>
  SLIP_HOST_DEVICE Pack<T, W> sum(std::size_t i) const {
    Pack<T, W> result = load<W>(input[0] + i);
    for (int e = 0; e < W; ++e) result.at[e] = weight[0] * result.at[e];
#ifdef __CUDA_ARCH__
#pragma unroll 4
#endif
    for (int k = 1; k < count; ++k) {
      const Pack<T, W> x = load<W>(input[k] + i);
      for (int e = 0; e < W; ++e) result.at[e] += weight[k] * x.at[e];
    }
    return result;
  }

  template <class F>
  void each_vector(F f) {
    for (int k = 0; k < count; ++k) f(input[k]);
  }
};

template <class T>
struct Average {
  T* out;
  Terms<T> terms;

  template <int W>
  SLIP_HOST_DEVICE void at(std::size_t i) const {
    store<W>(out + i, terms.template sum<W>(i));
  }

  template <class F>
  void each_vector(F f) {
    f(out);
    terms.each_vector(f);
  }
};

template <class T>
struct AverageApply {
  T* out;
  const T* gradient;
  T* velocity;  // null: no momentum
  T learning_rate;
  T momentum;
  T weight_decay;
  Terms<T> terms;

  template <int W>
  SLIP_HOST_DEVICE void at(std::size_t i) const {
    Pack<T, W> average = terms.template sum<W>(i);
    const Pack<T, W> own = load<W>(terms.input[0] + i);
    Pack<T, W> v = load<W>(gradient + i);
    for (int e = 0; e < W; ++e) v.at[e] = v.at[e] + weight_decay * own.at[e];
    if (velocity != nullptr) {
      const Pack<T, W> before = load<W>(velocity + i);
      for (int e = 0; e < W; ++e) v.at[e] = momentum * before.at[e] + v.at[e];
      store<W>(velocity + i, v);
    }
    for (int e = 0; e < W; ++e) average.at[e] = average.at[e] - learning_rate * v.at[e];
    store<W>(out + i, average);
  }

  template <class F>
  void each_vector(F f) {
    f(out);
    f(gradient);
    if (velocity != nullptr) f(velocity);
    terms.each_vector(f);
  }
};

/// Bf16 and Fp16 say how a float becomes two bytes, and back.
struct Bf16 {
  SLIP_HOST_DEVICE static std::uint16_t narrow(float x) { return bf16_of(x); }
  SLIP_HOST_DEVICE static float widen(std::uint16_t x) { return float_of_bf16(x); }
};
struct Fp16 {
  SLIP_HOST_DEVICE static std::uint16_t narrow(float x) { return fp16_of(x); }
  SLIP_HOST_DEVICE static float widen(std::uint16_t x) { return float_of_fp16(x); }
};

template <class Format, class T>
struct Narrow {
  std::uint16_t* out;
  const T* x;

  template <int W>
  SLIP_HOST_DEVICE void at(std::size_t i) const {
    const Pack<T, W> wide = load<W>(x + i);
    Pack<std::uint16_t, W> narrow;
    for (int e = 0; e < W; ++e) narrow.at[e] = Format::narrow(static_cast<float>(wide.at[e]));
    store<W>(out + i, narrow);
  }

  template <class F>
  void each_vector(F f) {
    f(out);
    f(x);
  }
};

template <class Format, class T>
struct Widen {
  T* out;
  const std::uint16_t* x;

  template <int W>
  SLIP_HOST_DEVICE void at(std::size_t i) const {
    const Pack<std::uint16_t, W> narrow = load<W>(x + i);
    Pack<T, W> wide;
    for (int e = 0; e < W; ++e) wide.at[e] = static_cast<T>(Format::widen(narrow.at[e]));
    store<W>(out + i, wide);
  }

  template <class F>
  void each_vector(F f) {
    f(out);
    f(x);
  }
};

template <class T>
using ToBf16 = Narrow<Bf16, T>;
template <class T>
using FromBf16 = Widen<Bf16, T>;
template <class T>
using ToFp16 = Narrow<Fp16, T>;
template <class T>
using FromFp16 = Widen<Fp16, T>;

constexpr int threads_of_block = 256;

/// The work of a kernel's threads, one item each: packs, and the single elements before and after
/// them.
struct Items {
  std::size_t head;
  std::size_t packs;
  std::size_t tail;

  SLIP_HOST_DEVICE std::size_t count() const { return head + packs + tail; }
};

template <int W, class Pass>
SLIP_HOST_DEVICE inline void do_item(const Pass& pass, const Items& items, std::size_t item) {
  if (item < items.packs) {
    pass.template at<W>(items.head + item * W);
  } else {
    const std::size_t single = item - items.packs;
    pass.template at<1>(single < items.head ? single : single + items.packs * W);
  }
}

/// Packs begin where all vectors are aligned; where they never are at once, all is single elements.
template <int W, class Pass>
Items items_of(Pass& pass, std::size_t count) {
  std::size_t first = W;  // the elements before the first pack, once it is known
  bool together = true;
  pass.each_vector([&](const auto* vector) {
    const auto place = reinterpret_cast<std::uintptr_t>(vector) / sizeof *vector % W;
    const std::size_t head = (W - place) % W;
    together = together && (first == W || first == head);
    first = head;
  });
  if (!together || count < first) return {count, 0, 0};
  const std::size_t packs = (count - first) / W;
  return {first, packs, count - first - packs * W};
}

/// All kernels: the name's first part and the pass, for float and double; and a pack's elements of
/// each.
#define SLIP_CUDA_KERNELS(X)           \
  X(average, Average, 4, 2)            \
  X(average_apply, AverageApply, 4, 2) \
  X(to_bf16, ToBf16, 8, 8)             \
  X(from_bf16, FromBf16, 8, 8)         \
  X(to_fp16, ToFp16, 8, 8)             \
  X(from_fp16, FromFp16, 8, 8)

}  // namespace slip::kernels::cuda

#pragma GCC visibility pop
