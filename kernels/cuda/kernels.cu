// Compiled to code of GPUs alone: launch.cc carries it in the library, and finds kernels by name.

#include "slipstream/kernels/cuda/passes_internal.h"

namespace slip::kernels::cuda {

template <int W, class Pass>
__device__ void run(const Pass& pass, const Items& items) {
  const std::size_t item = std::size_t{blockIdx.x} * threads_of_block + threadIdx.x;
  if (item < items.count()) do_item<W>(pass, items, item);
}

// __grid_constant__: the lists of inputs are read where they are, and not copied by every thread.
#define SLIP_KERNEL(name, Pass, floats, doubles)                                        \
  extern "C" __global__ void __launch_bounds__(threads_of_block) slip_##name##_float(   \
      const __grid_constant__ Pass<float> pass, const __grid_constant__ Items items) {  \
    run<floats>(pass, items);                                                           \
  }                                                                                     \
  extern "C" __global__ void __launch_bounds__(threads_of_block) slip_##name##_double(  \
      const __grid_constant__ Pass<double> pass, const __grid_constant__ Items items) { \
    run<doubles>(pass, items);                                                          \
  }
SLIP_CUDA_KERNELS(SLIP_KERNEL)
#undef SLIP_KERNEL

}  // namespace slip::kernels::cuda
