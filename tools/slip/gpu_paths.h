#pragma once

#include <string>
#include <utility>
#include <vector>

#include "slipstream/runtime/machine.h"

namespace slip::cli {

/// What `slip info` says of GPUs.
struct GpuPaths {
  std::string unusable;                                    // why; empty: they can be used
  std::vector<std::pair<std::string, std::string>> lines;  // name and value
};

/// Proves the ways to each GPU's memory by a transfer, and says why not the better one. `machine`
/// is this one. In processes of their own, as CUDA IPC needs two and no driver survives a fork.
GpuPaths try_gpu_paths(const Machine& machine);

}  // namespace slip::cli
