#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "slipstream/gpu/failures_internal.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/cuda/cuda_internal.h"
#include "slipstream/kernels/cuda/launch_internal.h"
#include "slipstream/kernels/cuda/passes_internal.h"

namespace slip::kernels::cuda {
namespace {

// enqueue(pass, n, device): n elements of it.
#define SLIP_ENQUEUE(name, Pass, floats, doubles)                             \
  void enqueue(Pass<float> pass, std::size_t n, int device) {                 \
    launch(Kernel::name##_float, device, &pass, items_of<floats>(pass, n));   \
  }                                                                           \
  void enqueue(Pass<double> pass, std::size_t n, int device) {                \
    launch(Kernel::name##_double, device, &pass, items_of<doubles>(pass, n)); \
  }
SLIP_CUDA_KERNELS(SLIP_ENQUEUE)
#undef SLIP_ENQUEUE

/// body(T()) with the type of the elements.
template <class Body>
void with_type(Dtype dtype, Body body) {
  if (dtype == Dtype::float32) {
    body(float());
  } else {
    body(double());
  }
}

template <class T>
T* elements(VectorView x) {
  return static_cast<T*>(x.data);
}
template <class T>
const T* elements(ConstVectorView x) {
  return static_cast<const T*>(x.data);
}

template <int most>
using Room = std::integral_constant<int, most>;

/// body(Room<most>()) with room for that many vectors in a list of a pass.
template <class Body>
void with_room(std::size_t vectors, int device, Body body) {
  if (vectors <= few) return body(Room<few>());
  if (vectors <= many) return body(Room<many>());
  gpu::note({Code::not_supported, fmt::format("GPU {}: an average of {} vectors; at most {} fit a "
                                              "kernel: take smaller groups or fewer neighbours",
                                              device, vectors, many)},
            device);
}
template <class Body>
void with_type_and_room(ConstVectorView x, std::size_t vectors, Body body) {
  with_room(vectors, x.device,
            [&](auto most) { with_type(x.dtype, [&](auto zero) { body(zero, most); }); });
}

template <class T, int most>
void set(Terms<T, most>& terms, std::span<const ConstVectorView> inputs,
         std::span<const double> weights) {
  terms.count = static_cast<int>(inputs.size());
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    terms.input[k] = elements<T>(inputs[k]);
    terms.weight[k] = static_cast<T>(weights[k]);
  }
}

/// In place of what `x` is not: the part of it that may be written before the rest is read.
std::size_t first_part(VectorView out, std::span<const std::uint16_t> x) {
  const auto begin = reinterpret_cast<std::uintptr_t>(out.data);
  const auto source = reinterpret_cast<std::uintptr_t>(x.data());
  if (source < begin || source >= begin + out.bytes()) return out.count;
  return std::max<std::size_t>(1, (source - begin) / size_of(out.dtype));
}

/// `x` may be the last bytes of `out`, so that the front is written first: half of what is left,
/// again and again.
template <template <class> class Pass>
void widen(VectorView out, std::span<const std::uint16_t> x) {
  while (out.count > 0) {
    const std::size_t n = std::min(out.count, first_part(out, x));
    with_type(out.dtype, [&]<class T>(T) {
      enqueue(Pass<T>{elements<T>(out), x.data()}, n, out.device);
    });
    out = out.slice(n, out.count - n);
    x = x.subspan(n);
  }
}

template <template <class> class Pass>
void narrow(std::span<std::uint16_t> out, ConstVectorView x) {
  with_type(x.dtype, [&]<class T>(T) {
    enqueue(Pass<T>{out.data(), elements<T>(x)}, x.count, x.device);
  });
}

}  // namespace

void weighted_average(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights, std::span<const VectorView> copies) {
  const auto enqueue_average = [&]<class T, int most>(T, Room<most>) {
    Average<T, most> pass;
    pass.outs = 0;
    for (const VectorView& copy : copies) pass.out[pass.outs++] = elements<T>(copy);
    pass.out[pass.outs++] = elements<T>(out);
    set(pass.terms, inputs, weights);
    enqueue(pass, out.count, out.device);
  };
  with_type_and_room(out, std::max(inputs.size(), copies.size() + 1), enqueue_average);
}

void average_apply(VectorView out, std::span<const ConstVectorView> inputs,
                   std::span<const double> weights, ConstVectorView gradient, const SgdStep& step) {
  with_type_and_room(out, inputs.size(), [&]<class T, int most>(T, Room<most>) {
    AverageApply<T, most> pass;
    pass.out = elements<T>(out);
    pass.gradient = elements<T>(gradient);
    pass.velocity = step.momentum != 0 ? elements<T>(step.velocity) : nullptr;
    pass.learning_rate = static_cast<T>(step.learning_rate);
    pass.momentum = static_cast<T>(step.momentum);
    pass.weight_decay = static_cast<T>(step.weight_decay);
    set(pass.terms, inputs, weights);
    enqueue(pass, out.count, out.device);
  });
}

void relay(std::span<const VectorView> sums, ConstVectorView own,
           std::span<const ConstVectorView> messages, const RelayAverage* average) {
  with_type_and_room(own, messages.size(), [&]<class T, int most>(T, Room<most>) {
    Relay<T, most> pass{};
    pass.own = elements<T>(own);
    for (const ConstVectorView& message : messages) {
      pass.message[pass.messages++] = elements<T>(message);
    }
    for (const VectorView& sum : sums) pass.sum[pass.sums++] = elements<T>(sum);
    if (average != nullptr) {
      pass.average = elements<T>(average->out);
      pass.rest = elements<T>(average->rest);
      pass.weight = static_cast<T>(average->weight);
      pass.rest_weight = static_cast<T>(average->rest_weight);
    }
    enqueue(pass, own.count, own.device);
  });
}

void gather(VectorView out, ConstVectorView x, std::span<const std::uint32_t> order) {
  with_type(out.dtype, [&]<class T>(T) {
    enqueue(Gather<T>{elements<T>(out), order.data(), elements<T>(x)}, out.count, out.device);
  });
}

void scatter_average(VectorView x, std::span<const std::uint32_t> order,
                     std::span<const ConstVectorView> inputs, std::span<const double> weights) {
  with_type_and_room(x, inputs.size(), [&]<class T, int most>(T, Room<most>) {
    ScatterAverage<T, most> pass;
    pass.x = elements<T>(x);
    pass.order = order.data();
    set(pass.terms, inputs, weights);
    enqueue(pass, order.size(), x.device);
  });
}

void copy(VectorView out, ConstVectorView x) {
  const int device = out.on_gpu() ? out.device : x.device;
  gpu::note(gpu::copy(out.data, x.data, x.bytes(), gpu::current_stream(device)), device);
}

void to_bf16(std::span<std::uint16_t> out, ConstVectorView x) { narrow<ToBf16>(out, x); }
void from_bf16(VectorView out, std::span<const std::uint16_t> x) { widen<FromBf16>(out, x); }
void to_fp16(std::span<std::uint16_t> out, ConstVectorView x) { narrow<ToFp16>(out, x); }
void from_fp16(VectorView out, std::span<const std::uint16_t> x) { widen<FromFp16>(out, x); }

}  // namespace slip::kernels::cuda
