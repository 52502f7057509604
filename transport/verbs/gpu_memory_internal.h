#pragma once

#include <cstddef>
#include <string>

#include "slipstream/transport/verbs/device_internal.h"

#pragma GCC visibility push(hidden)

/// How a device reaches memory of a GPU.
namespace slip::verbs {

/// From the best to the worst.
enum class GpuPath {
  dma_buf,  // the kernel's way of handing memory of one device to another
  peermem,  // the module nvidia-peermem, with which it is registered as the host's is
  staged    // through pinned memory of the host
};

/// Why not; empty: it works.
struct GpuObstacles {
  std::string flush;  // what the device has written cannot be made visible to kernels
  std::string dma_buf;
  std::string peermem;
};

/// What is taken, and why nothing better.
struct GpuChoice {
  GpuPath path = GpuPath::staged;
  std::string why;
};
GpuChoice choose_path(const GpuObstacles& obstacles);

/// "dma-buf", or the path and why nothing better: "staged through the host's memory (dma-buf:
/// ...)".
std::string describe(const GpuChoice& choice);

/// Memory of a GPU which the device writes, unless it is `staged`: then there is no registration.
struct GpuRegistration {
  GpuChoice choice;
  Registration registration;
};
/// Throws Error where there is no such GPU.
GpuRegistration register_gpu(const Device& device, int gpu, std::byte* memory, std::size_t bytes);

}  // namespace slip::verbs

#pragma GCC visibility pop
