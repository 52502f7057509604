#pragma once

#include <string>

#include "slipstream/base/error.h"

/// GPUs through CUDA's driver, which is loaded when one of these functions is first called: the
/// same library works where there is none. GPUs are numbered from 0 as CUDA does, so
/// CUDA_VISIBLE_DEVICES chooses and orders them. All functions may be called from any thread.
namespace slip::gpu {

/// Where memory is that is no GPU's.
constexpr int host = -1;

/// Why no GPU can be used here; ok: one can.
Status usable();

/// How many; 0 where none can be used.
int device_count();

/// "NVIDIA H100 80GB HBM3". Throws Error.
std::string device_name(int device);

/// The GPU that `memory` belongs to, `host` for all other memory, pinned memory included.
int device_of(const void* memory);

}  // namespace slip::gpu
