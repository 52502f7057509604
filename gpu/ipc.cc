#include "slipstream/gpu/ipc.h"

#include <fmt/format.h>

#include <cstring>

#include "slipstream/gpu/driver_internal.h"

namespace slip::gpu {

static_assert(sizeof(IpcKey) == sizeof(CUipcMemHandle));

IpcKey ipc_key(int device, const std::byte* memory) {
  const OnDevice here(device);
  CUipcMemHandle handle{};
  check(driver().cuIpcGetMemHandle(&handle, reinterpret_cast<CUdeviceptr>(memory)), device,
        "sharing its memory with other processes (CUDA IPC)");
  IpcKey key;
  std::memcpy(key.data(), &handle, sizeof handle);
  return key;
}

std::shared_ptr<std::byte> open_ipc(int device, const IpcKey& key, std::size_t bytes) {
  const OnDevice here(device);
  CUipcMemHandle handle{};
  std::memcpy(&handle, key.data(), sizeof handle);
  CUdeviceptr address = 0;
  check(driver().cuIpcOpenMemHandle(&address, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), device,
        "opening another process's memory (CUDA IPC)");
  std::shared_ptr<std::byte> opened(
      reinterpret_cast<std::byte*>(address), [device](std::byte* memory) {
        const OnDevice here_too(device);
        driver().cuCtxSynchronize();
        driver().cuIpcCloseMemHandle(reinterpret_cast<CUdeviceptr>(memory));
      });
  std::size_t found = 0;
  check(driver().cuMemGetAddressRange(nullptr, &found, address), device, "asking for its size");
  if (found >= bytes) return opened;
  throw Error(Code::bad_data,
              fmt::format("GPU {}: another process's memory has {} bytes, where it says {}", device,
                          found, bytes));
}

void reach(int device, int other) {
  if (device == other) return;
  const CUcontext others = context_of(other);
  const OnDevice here(device);
  const CUresult result = driver().cuCtxEnablePeerAccess(others, 0);
  if (result == CUDA_SUCCESS || result == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED) return;
  check(result, device, fmt::format("reaching memory of GPU {}", other));
}

}  // namespace slip::gpu
