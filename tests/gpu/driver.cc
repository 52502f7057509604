#include "driver.h"

#include <cuda.h>
#include <dlfcn.h>

#include <cstdlib>

namespace {

// Before main: the driver is chosen when it is first asked for.
[[maybe_unused]] const bool chosen = [] {
  if (std::getenv("SLIP_TEST_GPU") == nullptr) setenv("SLIP_CUDA_LIBRARY", SLIP_FAKE_CUDA, 0);
  return true;
}();

template <class Function>
Function find(const char* name) {
  return reinterpret_cast<Function>(dlsym(dlopen(SLIP_FAKE_CUDA, RTLD_NOW | RTLD_NOLOAD), name));
}

/// A call of the driver that is in use.
template <class Function>
Function* call(const char* name) {
  const bool is_real = std::getenv("SLIP_TEST_GPU") != nullptr;
  void* const driver = dlopen(is_real ? "libcuda.so.1" : SLIP_FAKE_CUDA, RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<Function*>(dlsym(driver, name));
}
// cuda.h's names are macros that may add a version.
#define SLIP_CUDA_NAME(name) #name
#define SLIP_CUDA(name) call<decltype(name)>(SLIP_CUDA_NAME(name))

}  // namespace

namespace slip {

std::size_t enqueued_on(const gpu::Stream& stream) {
  return find<std::size_t (*)(void*)>("fake_cuda_enqueued")(stream.handle());
}
void lose_gpus() { find<void (*)()>("fake_cuda_lose_gpus")(); }
void fail_calls(const char* name) { find<void (*)(const char*)>("fake_cuda_fail")(name); }

Capture::Capture() {
  CUcontext context = nullptr;
  SLIP_CUDA(cuDevicePrimaryCtxRetain)(&context, 0);
  SLIP_CUDA(cuCtxSetCurrent)(context);
  SLIP_CUDA(cuStreamCreate)(&stream_, CU_STREAM_DEFAULT);
  SLIP_CUDA(cuStreamBeginCapture)(stream_, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

bool Capture::end() {
  CUgraph graph = nullptr;
  const CUresult result = SLIP_CUDA(cuStreamEndCapture)(stream_, &graph);
  SLIP_CUDA(cuStreamDestroy)(stream_);
  return result == CUDA_SUCCESS;
}

}  // namespace slip
