#pragma once

#include <nccl.h>

#include "slipstream/base/error.h"

#pragma GCC visibility push(hidden)

namespace slip::gpu {

/// What is used of NCCL. It is loaded when first asked for and not linked, so that one program runs
/// with and without it.
struct NcclLibrary {
#define SLIP_NCCL_FUNCTIONS(X) \
  X(ncclAllReduce)             \
  X(ncclCommAbort)             \
  X(ncclCommDestroy)           \
  X(ncclCommFinalize)          \
  X(ncclCommGetAsyncError)     \
  X(ncclCommInitRankConfig)    \
  X(ncclGetErrorString)        \
  X(ncclGetLastError)          \
  X(ncclGetUniqueId)           \
  X(ncclGetVersion)
#define SLIP_NCCL_DECLARE(name) decltype(&::name) name = nullptr;
  SLIP_NCCL_FUNCTIONS(SLIP_NCCL_DECLARE)
#undef SLIP_NCCL_DECLARE

  /// Why it cannot be used; ok: it is loaded.
  Status usable;
  int version = 0;  // as NCCL_VERSION_CODE
};

/// Loads it on first use. Never unloaded.
const NcclLibrary& nccl_library();

}  // namespace slip::gpu

#pragma GCC visibility pop
