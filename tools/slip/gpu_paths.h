#pragma once

#include <string>
#include <utility>
#include <vector>

#include "slipstream/base/time.h"
#include "slipstream/runtime/machine.h"
#include "slipstream/tools/slip/gpu_trials.h"
#include "slipstream/tools/slip/respondent.h"

namespace slip::cli {

/// What `slip info` says of GPUs.
struct GpuPaths {
  std::string unusable;                                    // why; empty: they can be used
  std::vector<std::pair<std::string, std::string>> lines;  // name and value
  // What carries them between processes of this host: "cuda_ipc", "way of the host"; empty:
  // nothing.
  std::string within_host;
};

/// Proves the ways to memory of GPUs by transfers, and says why not the better one. In two
/// processes, as CUDA IPC needs, which are there as soon as this is: before a driver is loaded.
class GpuProver {
 public:
  /// Whatever takes longer than `limit` is given up. Throws Error.
  explicit GpuProver(Duration limit);

  /// `machine` is this one.
  GpuPaths prove(const Machine& machine);

 private:
  struct Way {
    std::string name;  // as in GpuPaths; empty: none
    std::string text;
  };

  bool add_gpu(int device, const Machine& machine, GpuPaths* paths);
  Way within_host(int from, int to);
  Way on_host(int from, int to, const std::string& why_not_ipc);

  GpuTrials trials_;
  Respondent owner_, writer_;
};

}  // namespace slip::cli
