#pragma once

#include <string>

#include "slipstream/base/error.h"

/// NVIDIA's library of collectives between GPUs, which is loaded when one of these functions is
/// first called. SLIP_NCCL_LIBRARY names another file than libnccl.so.2. From any thread.
namespace slip::gpu {

/// Why NCCL cannot be used here; ok: it can, where there are GPUs.
Status nccl_usable();

/// "2.28.9"; empty where it cannot be used.
std::string nccl_version();

}  // namespace slip::gpu
