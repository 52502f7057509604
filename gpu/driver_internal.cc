#include "slipstream/gpu/driver_internal.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "slipstream/gpu/failures_internal.h"

namespace slip::gpu {
namespace {

// Code compiled by one toolkit runs on drivers of its major version and newer; 12.1 is the first
// with so large parameters as some kernels have.
constexpr int oldest_driver = std::max(12010, CUDA_VERSION / 1000 * 1000);

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

std::string library() {
  const char* named = std::getenv("SLIP_CUDA_LIBRARY");
  return named != nullptr ? named : "libcuda.so.1";
}

Status start(Driver& driver) {
  const std::string file = library();
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return {Code::not_supported,
            fmt::format("{} cannot be loaded ({}); install NVIDIA's driver", file, dlerror())};
  }
#define SLIP_CUDA_NAME(name) #name
#define SLIP_CUDA_FIND(name)                                                                      \
  driver.name = reinterpret_cast<decltype(driver.name)>(dlsym(handle, SLIP_CUDA_NAME(name)));     \
  if (driver.name == nullptr) {                                                                   \
    return {Code::not_supported, fmt::format("{} has no {}; install a newer NVIDIA driver", file, \
                                             SLIP_CUDA_NAME(name))};                              \
  }
  SLIP_CUDA_FUNCTIONS(SLIP_CUDA_FIND)
#undef SLIP_CUDA_FIND
#undef SLIP_CUDA_NAME

  int number = 0;
  if (driver.cuDriverGetVersion(&number) == CUDA_SUCCESS && number < oldest_driver) {
    return {Code::not_supported,
            fmt::format("NVIDIA's driver is too old: it serves CUDA {}, and this was built with "
                        "CUDA {}; install a driver of CUDA {} or newer",
                        version(number), version(CUDA_VERSION), version(oldest_driver))};
  }
  CUresult result = driver.cuInit(0);
  if (result == CUDA_SUCCESS) result = driver.cuDeviceGetCount(&driver.devices);
  if (result == CUDA_ERROR_NO_DEVICE || (result == CUDA_SUCCESS && driver.devices == 0)) {
    return {Code::not_supported,
            "no GPU is here, or CUDA_VISIBLE_DEVICES hides all; `nvidia-smi -L` lists them"};
  }
  if (result != CUDA_SUCCESS) {
    const char* text = "unknown error";
    driver.cuGetErrorString(result, &text);
    return {Code::not_supported,
            fmt::format("NVIDIA's driver does not start ({}); see `nvidia-smi`", text)};
  }
  return {};
}

struct Device {
  std::once_flag opened;
  CUcontext context = nullptr;  // held until the process ends
  std::atomic<bool> failed{false};
  std::mutex mutex;  // guards the following
  Status failure;    // the first; set before `failed` (release, pairs with the acquire in `noted`)
};

/// Throws Error where there is no such device.
Device& at(int device) {
  driver().usable.throw_if_failed();
  static const std::unique_ptr<Device[]> devices(
      new Device[static_cast<std::size_t>(driver().devices)]);
  if (device < 0 || device >= driver().devices) {
    throw Error(Code::invalid_argument,
                fmt::format("GPU {} is not here: this process sees {}, numbered from 0 "
                            "(CUDA_VISIBLE_DEVICES chooses them)",
                            device, driver().devices));
  }
  return devices[static_cast<std::size_t>(device)];
}

}  // namespace

const Driver& driver() {
  static const Driver loaded = [] {
    Driver result;
    result.usable = start(result);
    if (!result.usable) result.devices = 0;
    return result;
  }();
  return loaded;
}

bool driver_is_loaded() {
  void* const handle = dlopen(library().c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (handle != nullptr) dlclose(handle);  // which was opened by others, too
  return handle != nullptr;
}

Status failure(CUresult result, int device, std::string_view what) {
  if (result == CUDA_SUCCESS) return {};
  const char* text = "unknown error";
  driver().cuGetErrorString(result, &text);
  switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY: {
      std::size_t free = 0, all = 0;
      driver().cuMemGetInfo(&free, &all);
      return {Code::out_of_memory,
              fmt::format("GPU {}: {}: out of memory, {} of {} MB are free; put fewer workers or "
                          "smaller models on it, or end what else runs there",
                          device, what, free / 1'000'000, all / 1'000'000)};
    }
    case CUDA_ERROR_INVALID_VALUE:
      return {Code::invalid_argument,
              fmt::format("GPU {}: {}: {}; is this memory of that GPU?", device, what, text)};
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
      return {Code::not_supported,
              fmt::format("GPU {}: {}: {}; install a newer NVIDIA driver, or build for this GPU",
                          device, what, text)};
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_UNKNOWN:
      return {Code::io, fmt::format("GPU {} is lost: {}: {}; `nvidia-smi` and the kernel's log say "
                                    "more, and the run must be started again",
                                    device, what, text)};
    default:
      return {Code::io, fmt::format("GPU {}: {}: {}", device, what, text)};
  }
}

void check(CUresult result, int device, std::string_view what) {
  failure(result, device, what).throw_if_failed();
}

void note(const Status& status, int device) {
  if (status) return;
  Device& failing = at(device);
  const std::lock_guard lock(failing.mutex);
  if (!failing.failure) return;
  failing.failure = status;
  failing.failed.store(true, std::memory_order_release);
}

Status noted(int device) {
  Device& failing = at(device);
  if (!failing.failed.load(std::memory_order_acquire)) [[likely]]
    return {};
  const std::lock_guard lock(failing.mutex);
  return failing.failure;
}

CUdevice handle_of(int device) {
  at(device);
  CUdevice handle = 0;
  check(driver().cuDeviceGet(&handle, device), device, "finding it");
  return handle;
}

CUuuid uuid_of(int device) {
  CUuuid uuid{};
  check(driver().cuDeviceGetUuid(&uuid, handle_of(device)), device, "asking its UUID");
  return uuid;
}

std::string to_string(const CUuuid& uuid) {
  std::string text = "GPU";
  for (std::size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

CUcontext context_of(int device) {
  Device& opened = at(device);
  std::call_once(opened.opened, [&] {
    check(driver().cuDevicePrimaryCtxRetain(&opened.context, handle_of(device)), device,
          "opening it");
  });
  return opened.context;
}

OnDevice::OnDevice(int device) {
  const CUcontext wanted = context_of(device);
  driver().cuCtxGetCurrent(&before_);
  if (before_ != wanted) driver().cuCtxSetCurrent(wanted);
  driver().cuThreadExchangeStreamCaptureMode(&mode_);
}

OnDevice::~OnDevice() {
  driver().cuThreadExchangeStreamCaptureMode(&mode_);
  CUcontext now = nullptr;
  driver().cuCtxGetCurrent(&now);
  if (now != before_) driver().cuCtxSetCurrent(before_);
}

}  // namespace slip::gpu
