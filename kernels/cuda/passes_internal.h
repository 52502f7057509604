#pragma once

#include <cstddef>
#include <cstdint>

#include "slipstream/kernels/elements.h"

#pragma GCC visibility push(hidden)

/// What the kernels on GPUs do, element by element: plain code that the host compiles, too, so that
/// it is tested everywhere. A pass is a kernel's parameter; `at<W>(i)` does the elements [i, i + W)
/// and reads all that it needs of an input before it writes what may be the same. `each_vector`
/// calls its argument with the address of each vector that is read or written in packs,
/// `each_scattered` with those of the others. Operations and their order are those of reference.h.
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

/// Lists of a pass's vectors have room for a few, or for as many as a kernel's parameters take.
constexpr int few = 32;
constexpr int many = 1024;

template <class T, int most>
struct Terms {
  int count;
  const T* input[most];
  T weight[most];

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

/// The average goes to each of `out`.
template <class T, int most>
struct Average {
  int outs;
  T* out[most];
  Terms<T, most> terms;

  template <int W>
  SLIP_HOST_DEVICE void at(std::size_t i) const {
    const Pack<T, W> average = terms.template sum<W>(i);
    for (int k = 0; k < outs; ++k) store<W>(out[k] + i, average);
  }

  template <class F>
  void each_vector(F f) {
    for (int k = 0; k < outs; ++k) f(out[k]);
    terms.each_vector(f);
  }
};

template <class T, int most>
struct AverageApply {
  T* out;
  const T* gradient;
  T* velocity;  // null: no momentum
  T learning_rate;
  T momentum;
  T weight_decay;
  Terms<T, most> terms;

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

/// A round of RelaySum. What of the sums is common to those that follow is added once: the order
/// stays what it is. The average comes last, as it may overwrite `own`.
template <class T, int most>
struct Relay {
  const T* own;
  int messages;
  int sums;                // as many, or none
  const T* message[most];  // null: it is missing
  T* sum[most];
  T* average;     // null: none is wanted
  const T* rest;  // null: nothing stands for what is missing
  T weight;
  T rest_weight;

  template <int W>
  SLIP_HOST_DEVICE void at(std::size_t i) const {
    const Pack<T, W> mine = load<W>(own + i);
    Pack<T, W> before = mine;
    for (int k = 0; k < sums; ++k) {
      Pack<T, W> all = before;
      for (int from = k + 1; from < messages; ++from) add(all, T(1), message[from], i);
      store<W>(sum[k] + i, all);
      add(before, T(1), message[k], i);
    }
    if (average == nullptr) return;
    Pack<T, W> mean = mine;
    for (int e = 0; e < W; ++e) mean.at[e] = weight * mean.at[e];
    for (int k = 0; k < messages; ++k) add(mean, weight, message[k], i);
    add(mean, rest_weight, rest, i);
    store<W>(average + i, mean);
  }

  template <class F>
  void each_vector(F f) {
    const auto if_there = [&](auto& vector) {
      if (vector != nullptr) f(vector);
    };
    f(own);
    for (int k = 0; k < messages; ++k) if_there(message[k]);
    for (int k = 0; k < sums; ++k) f(sum[k]);
    if_there(average);
    if_there(rest);
  }

 private:
  template <int W>
  SLIP_HOST_DEVICE static void add(Pack<T, W>& to, T scale, const T* from, std::size_t i) {
    if (from == nullptr) return;
    const Pack<T, W> x = load<W>(from + i);
    for (int e = 0; e < W; ++e) to.at[e] += scale * x.at[e];
  }
};

/// out[i] = x[order[i]].
template <class T>
struct Gather {
  T* out;
  const std::uint32_t* order;
  const T* x;

  template <int W>
  SLIP_HOST_DEVICE void at(std::size_t i) const {
    const Pack<std::uint32_t, W> places = load<W>(order + i);
    Pack<T, W> pack;
    for (int e = 0; e < W; ++e) pack.at[e] = x[places.at[e]];
    store<W>(out + i, pack);
  }

  template <class F>
  void each_vector(F f) {
    f(out);
    f(order);
  }
  template <class F>
  void each_scattered(F f) {
    f(x);
  }
};

/// x[order[i]] = the average's element i.
template <class T, int most>
struct ScatterAverage {
  T* x;
  const std::uint32_t* order;
  Terms<T, most> terms;

  template <int W>
  SLIP_HOST_DEVICE void at(std::size_t i) const {
    const Pack<std::uint32_t, W> places = load<W>(order + i);
    const Pack<T, W> average = terms.template sum<W>(i);
    for (int e = 0; e < W; ++e) x[places.at[e]] = average.at[e];
  }

  template <class F>
  void each_vector(F f) {
    f(order);
    terms.each_vector(f);
  }
  template <class F>
  void each_scattered(F f) {
    f(x);
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
using AverageOfFew = Average<T, few>;
template <class T>
using AverageOfMany = Average<T, many>;
template <class T>
using AverageApplyOfFew = AverageApply<T, few>;
template <class T>
using AverageApplyOfMany = AverageApply<T, many>;
template <class T>
using RelayOfFew = Relay<T, few>;
template <class T>
using RelayOfMany = Relay<T, many>;
template <class T>
using ScatterAverageOfFew = ScatterAverage<T, few>;
template <class T>
using ScatterAverageOfMany = ScatterAverage<T, many>;
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
#define SLIP_CUDA_KERNELS(X)                             \
  X(average, AverageOfFew, 4, 2)                         \
  X(average_of_many, AverageOfMany, 4, 2)                \
  X(average_apply, AverageApplyOfFew, 4, 2)              \
  X(average_apply_of_many, AverageApplyOfMany, 4, 2)     \
  X(relay, RelayOfFew, 4, 2)                             \
  X(relay_of_many, RelayOfMany, 4, 2)                    \
  X(gather, Gather, 4, 2)                                \
  X(scatter_average, ScatterAverageOfFew, 4, 2)          \
  X(scatter_average_of_many, ScatterAverageOfMany, 4, 2) \
  X(to_bf16, ToBf16, 8, 8)                               \
  X(from_bf16, FromBf16, 8, 8)                           \
  X(to_fp16, ToFp16, 8, 8)                               \
  X(from_fp16, FromFp16, 8, 8)

}  // namespace slip::kernels::cuda

#pragma GCC visibility pop
