#pragma once

#include <cuda.h>

#include <string>
#include <string_view>

#include "slipstream/base/error.h"

#pragma GCC visibility push(hidden)

namespace slip::gpu {

/// What is used of CUDA's driver. It is loaded when first asked for and not linked, so that one
/// program runs with and without a GPU. SLIP_CUDA_LIBRARY names another file.
struct Driver {
#define SLIP_CUDA_FUNCTIONS(X)     \
  X(cuCtxEnablePeerAccess)         \
  X(cuCtxGetCurrent)               \
  X(cuCtxSetCurrent)               \
  X(cuCtxSynchronize)              \
  X(cuDeviceCanAccessPeer)         \
  X(cuDeviceGet)                   \
  X(cuDeviceGetAttribute)          \
  X(cuDeviceGetCount)              \
  X(cuDeviceGetName)               \
  X(cuDeviceGetPCIBusId)           \
  X(cuDeviceGetUuid)               \
  X(cuDevicePrimaryCtxRetain)      \
  X(cuDriverGetVersion)            \
  X(cuEventCreate)                 \
  X(cuEventDestroy)                \
  X(cuEventElapsedTime)            \
  X(cuEventQuery)                  \
  X(cuEventRecord)                 \
  X(cuFlushGPUDirectRDMAWrites)    \
  X(cuGetErrorString)              \
  X(cuInit)                        \
  X(cuIpcCloseMemHandle)           \
  X(cuIpcGetMemHandle)             \
  X(cuIpcOpenMemHandle)            \
  X(cuLaunchHostFunc)              \
  X(cuLaunchKernel)                \
  X(cuMemAlloc)                    \
  X(cuMemFree)                     \
  X(cuMemFreeHost)                 \
  X(cuMemGetAddressRange)          \
  X(cuMemGetHandleForAddressRange) \
  X(cuMemGetInfo)                  \
  X(cuMemHostAlloc)                \
  X(cuMemHostGetDevicePointer)     \
  X(cuMemHostRegister)             \
  X(cuMemHostUnregister)           \
  X(cuMemcpyAsync)                 \
  X(cuMemsetD8Async)               \
  X(cuModuleGetFunction)           \
  X(cuModuleLoadData)              \
  X(cuPointerGetAttribute)         \
  X(cuPointerGetAttributes)        \
  X(cuStreamCreate)                \
  X(cuStreamDestroy)               \
  X(cuStreamQuery)                 \
  X(cuStreamSynchronize)           \
  X(cuStreamWaitEvent)             \
  X(cuStreamWaitValue64)           \
  X(cuThreadExchangeStreamCaptureMode)
// cuda.h's names are macros that may add a version, in declarations as in calls.
#define SLIP_CUDA_DECLARE(name) decltype(&::name) name = nullptr;
  SLIP_CUDA_FUNCTIONS(SLIP_CUDA_DECLARE)
#undef SLIP_CUDA_DECLARE

  /// Why there is no GPU to be used; ok: there is.
  Status usable;
  int devices = 0;
};

/// Loads it on first use. Never unloaded.
const Driver& driver();

/// Somebody in this process has loaded it, be it CUDA's runtime library.
bool driver_is_loaded();

/// A failed call, in one line that says what to do. `what` was tried: "allocating 4096 bytes".
Status failure(CUresult result, int device, std::string_view what);

/// Throws Error where a call failed.
void check(CUresult result, int device, std::string_view what);

/// The driver's number of a device. Throws Error where there is no such device.
CUdevice handle_of(int device);

/// What tells that GPU from all others, of whatever host. Throws Error.
CUuuid uuid_of(int device);
/// As `nvidia-smi -L` writes it.
std::string to_string(const CUuuid& uuid);

/// The device's primary context, which CUDA's runtime library and LibTorch use, too. Throws Error
/// where there is no such device.
CUcontext context_of(int device);

/// That context is this thread's until the end of the scope. A call in it shows whether it is lost.
/// Calls in it do not break a capture of streams that they do not use, on this thread or another.
class OnDevice {
 public:
  /// Throws Error as context_of does.
  explicit OnDevice(int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  CUcontext before_ = nullptr;
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

}  // namespace slip::gpu

#pragma GCC visibility pop
