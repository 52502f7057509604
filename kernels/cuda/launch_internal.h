#pragma once

#include "slipstream/base/error.h"
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

/// Enqueues a kernel on the calling thread's current stream of the GPU. The first call for a GPU
/// loads all kernels there. What fails shows in the stream's status.
void launch(Kernel kernel, int device, const void* pass, const Items& items);

/// The status of the GPU's streams shows `failure`, if it is one and the first.
void report(const Status& failure, int device);

}  // namespace slip::kernels::cuda

#pragma GCC visibility pop
