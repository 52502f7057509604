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

/// "GPU-8c2f...", as `nvidia-smi -L` lists it: no other GPU, of whatever host, has the same. Throws
/// Error.
std::string device_uuid(int device);

/// "memory of GPU 0", "memory of the host".
inline std::string describe(int device) {
  return device == host ? "memory of the host" : "memory of GPU " + std::to_string(device);
}

/// Whether that GPU can read and write memory of another one of this process where it is. Throws
/// Error.
bool has_peer_access(int device, int other);

/// The GPU that `memory` belongs to, `host` for all other memory, pinned memory included.
int device_of(const void* memory);

/// Whether work of that GPU can read and write `memory` where it is: memory of its own, or pinned
/// memory of the host.
bool reaches(int device, const void* memory);

/// False for memory that is a GPU's alone; what CUDA manages is the host's, too. Loads no driver:
/// where nobody has, there is no such memory.
bool host_reaches(const void* memory);

}  // namespace slip::gpu
