#pragma once

#include "slipstream/kernels/cuda/passes_internal.h"

#pragma GCC visibility push(hidden)

namespace slip::kernels::cuda {

/// By their place in the list of kernels.
enum class Kernel : int {
#define SLIP_NAME(name, Pass, floats, doubles) name##_float, name##_double,
  SLIP_CUDA_KERNELS(SLIP_NAME)
#undef SLIP_NAME
      count
};

/// Loads all kernels, once. While a stream waits for a word this may have to wait for it: hence
/// before. What fails shows in the status of the GPU's streams.
void load(int device);

/// Enqueues a kernel on the calling thread's current stream of the GPU, loaded or not. What fails
/// shows in the stream's status.
void launch(Kernel kernel, int device, const void* pass, const Items& items);

}  // namespace slip::kernels::cuda

#pragma GCC visibility pop
