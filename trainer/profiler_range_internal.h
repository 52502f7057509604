#pragma once

#include <cstdint>

#include "slipstream/trainer/trace.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// What a worker is doing, from here to the end of the scope, as a range of NVTX in the domain
/// "slipstream": profilers such as Nsight Systems show it beside the GPU's work. Where none has
/// injected itself into the process it costs a branch.
class ProfilerRange {
 public:
  explicit ProfilerRange(SpanKind kind);
  ~ProfilerRange();
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;

 private:
  std::uint64_t id_;
};

}  // namespace slip

#pragma GCC visibility pop
