#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include "slipstream/gpu/driver_internal.h"
#include "slipstream/gpu/failures_internal.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/cuda/launch_internal.h"

// The code of the GPUs' kernels, as nvcc wrote it.
asm(".pushsection .rodata\n"
    ".balign 64\n"
    ".hidden slip_gpu_code\n"
    ".globl slip_gpu_code\n"
    "slip_gpu_code: .incbin \"" SLIP_GPU_CODE
    "\"\n"
    ".popsection\n");
extern "C" const char slip_gpu_code[] __attribute__((visibility("hidden")));

namespace slip::kernels::cuda {
namespace {

constexpr auto kernels = static_cast<std::size_t>(Kernel::count);

constexpr std::array<const char*, kernels> names = {
#define SLIP_NAMES(name, Pass, floats, doubles) "slip_" #name "_float", "slip_" #name "_double",
    SLIP_CUDA_KERNELS(SLIP_NAMES)
#undef SLIP_NAMES
};

using Functions = std::array<CUfunction, kernels>;

/// On a GPU that is current.
Functions load_functions(int device) {
  Functions functions{};
  CUmodule module = nullptr;
  gpu::check(gpu::driver().cuModuleLoadData(&module, slip_gpu_code), device, "loading kernels");
  for (std::size_t k = 0; k < kernels; ++k) {
    gpu::check(gpu::driver().cuModuleGetFunction(&functions[k], module, names[k]), device,
               names[k]);
  }
  return functions;
}

/// The GPU's kernels, loaded by the first call; null: that failed.
const Functions* functions_of(int device) {
  struct Loaded {
    std::once_flag once;
    std::unique_ptr<Functions> functions;
  };
  static const std::unique_ptr<Loaded[]> gpus(
      new Loaded[static_cast<std::size_t>(gpu::driver().devices)]);
  Loaded& here = gpus[static_cast<std::size_t>(device)];
  std::call_once(here.once, [&] {
    try {
      here.functions = std::make_unique<Functions>(load_functions(device));
    } catch (const Error& error) {
      gpu::note(error.status(), device);
    }
  });
  return here.functions.get();
}

}  // namespace

void load(int device) {
  const gpu::OnDevice here(device);
  (void)functions_of(device);
}

void launch(Kernel kernel, int device, const void* pass, const Items& items) {
  if (items.count() == 0) return;
  const gpu::OnDevice here(device);
  const Functions* functions = functions_of(device);
  if (functions == nullptr) return;
  const auto blocks =
      static_cast<unsigned>((items.count() + threads_of_block - 1) / threads_of_block);
  void* parameters[] = {const_cast<void*>(pass), const_cast<Items*>(&items)};
  const auto k = static_cast<std::size_t>(kernel);
  const auto stream = static_cast<CUstream>(gpu::current_stream(device).handle());
  const CUresult result = gpu::driver().cuLaunchKernel(
      (*functions)[k], blocks, 1, 1, threads_of_block, 1, 1, 0, stream, parameters, nullptr);
  if (result != CUDA_SUCCESS) [[unlikely]]
    gpu::note(gpu::failure(result, device, names[k]), device);
}

}  // namespace slip::kernels::cuda
