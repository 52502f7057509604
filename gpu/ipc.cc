#include "slipstream/gpu/ipc.h"

#include <fmt/format.h>

#include <cstring>

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/driver_internal.h"
#include "slipstream/gpu/words.h"

namespace slip::gpu {
namespace {

static_assert(sizeof(IpcKey::memory) == sizeof(CUipcMemHandle));
static_assert(sizeof(IpcKey::gpu) == sizeof(CUuuid));

/// Both ways, so that both workers decide alike.
bool reach_each_other(int device, int other) {
  return device == other || (has_peer_access(device, other) && has_peer_access(other, device));
}

CUuuid gpu_of(const IpcKey& key) {
  CUuuid uuid{};
  std::memcpy(&uuid, key.gpu.data(), sizeof uuid);
  return uuid;
}

/// As this process numbers them; none: it is hidden.
std::optional<int> find_gpu(const CUuuid& uuid) {
  for (int device = 0; device < driver().devices; ++device) {
    const CUuuid found = uuid_of(device);
    if (std::memcmp(&found, &uuid, sizeof uuid) == 0) return device;
  }
  return std::nullopt;
}

}  // namespace

std::optional<IpcKey> ipc_key(int device, const std::byte* memory, std::string* why) {
  const OnDevice here(device);
  CUipcMemHandle handle{};
  const CUresult result =
      driver().cuIpcGetMemHandle(&handle, reinterpret_cast<CUdeviceptr>(memory));
  const Status status =
      failure(result, device, "sharing its memory with other processes (CUDA IPC)");
  if (result == CUDA_ERROR_NOT_SUPPORTED) {
    *why = status.message();
    return std::nullopt;
  }
  status.throw_if_failed();
  const CUuuid uuid = uuid_of(device);
  IpcKey key;
  std::memcpy(key.memory.data(), &handle, sizeof handle);
  std::memcpy(key.gpu.data(), &uuid, sizeof uuid);
  return key;
}

bool reaches(int device, const IpcKey& key) {
  const std::optional<int> owner = find_gpu(gpu_of(key));
  return !owner || reach_each_other(device, *owner);
}

std::shared_ptr<std::byte> open_ipc(int device, const IpcKey& key, std::size_t bytes) {
  CUipcMemHandle handle{};
  std::memcpy(&handle, key.memory.data(), sizeof handle);
  const std::optional<int> owner = find_gpu(gpu_of(key));
  const int at = reaches(device, key) ? device : *owner;
  const OnDevice here(at);
  CUdeviceptr address = 0;
  check(driver().cuIpcOpenMemHandle(&address, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), device,
        fmt::format("opening memory of {}{} (CUDA IPC)", to_string(gpu_of(key)),
                    owner ? "" : ", which is hidden from this process"));
  std::shared_ptr<std::byte> opened(
      reinterpret_cast<std::byte*>(address), [device, at](std::byte* memory) {
        (void)synchronize(device);  // whose copies may be under way
        const OnDevice here_too(at);
        driver().cuIpcCloseMemHandle(reinterpret_cast<CUdeviceptr>(memory));
      });
  std::size_t found = 0;
  check(driver().cuMemGetAddressRange(nullptr, &found, address), device, "asking for its size");
  if (found >= bytes) return opened;
  throw Error(Code::bad_data,
              fmt::format("GPU {}: another process's memory has {} bytes, where it says {}", device,
                          found, bytes));
}

std::shared_ptr<std::byte> lend(int device, std::byte* memory, std::size_t bytes) {
  const OnDevice here(device);
  std::shared_ptr<std::byte> pinned = pin(device, memory, bytes);
  CUdeviceptr address = 0;
  check(driver().cuMemHostGetDevicePointer(&address, memory, 0), device,
        "reaching memory of the host");
  return {reinterpret_cast<std::byte*>(address), [device, pinned](std::byte*) mutable {
            const OnDevice here_too(device);
            driver().cuCtxSynchronize();
            pinned.reset();  // now: who has a weak handle keeps this function
          }};
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
