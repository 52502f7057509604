#include "slipstream/gpu/memory.h"

#include <fmt/format.h>

#include <cstring>

#include "slipstream/gpu/driver_internal.h"

namespace slip::gpu {

std::shared_ptr<std::byte> allocate(int device, std::size_t bytes) {
  const OnDevice here(device);
  const std::string what = fmt::format("allocating {} bytes", bytes);
  CUdeviceptr address = 0;
  check(driver().cuMemAlloc(&address, bytes > 0 ? bytes : 1), device, what);
  std::shared_ptr<std::byte> memory(reinterpret_cast<std::byte*>(address), [device](std::byte* p) {
    const OnDevice here_too(device);
    driver().cuMemFree(reinterpret_cast<CUdeviceptr>(p));
  });
  const Stream stream(device, nullptr);
  check(driver().cuMemsetD8Async(address, 0, bytes, nullptr), device, what);
  stream.synchronize().throw_if_failed();
  return memory;
}

std::shared_ptr<std::byte> allocate_pinned(int device, std::size_t bytes) {
  const OnDevice here(device);
  void* address = nullptr;
  check(driver().cuMemHostAlloc(&address, bytes > 0 ? bytes : 1, CU_MEMHOSTALLOC_PORTABLE), device,
        fmt::format("pinning {} bytes of the host's memory", bytes));
  std::memset(address, 0, bytes);
  return {static_cast<std::byte*>(address), [device](std::byte* p) {
            const OnDevice here_too(device);
            driver().cuMemFreeHost(p);
          }};
}

Status copy(void* to, const void* from, std::size_t bytes, const Stream& stream) {
  if (bytes == 0 || to == from) return {};
  const OnDevice here(stream.device());
  return failure(
      driver().cuMemcpyAsync(reinterpret_cast<CUdeviceptr>(to), reinterpret_cast<CUdeviceptr>(from),
                             bytes, static_cast<CUstream>(stream.handle())),
      stream.device(), "copying");
}

}  // namespace slip::gpu
