#include "slipstream/gpu/device.h"

#include "slipstream/gpu/driver_internal.h"

namespace slip::gpu {

Status usable() { return driver().usable; }

int device_count() { return driver().devices; }

std::string device_name(int device) {
  context_of(device);
  CUdevice handle = 0;
  check(driver().cuDeviceGet(&handle, device), device, "finding it");
  char name[256] = {};
  check(driver().cuDeviceGetName(name, sizeof name, handle), device, "asking its name");
  return name;
}

int device_of(const void* memory) {
  if (!driver().usable) return host;
  const auto address = reinterpret_cast<CUdeviceptr>(memory);
  // Memory that the driver does not know is an error here, and the host's.
  unsigned type = 0;
  int device = host;
  if (driver().cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address) !=
          CUDA_SUCCESS ||
      type != CU_MEMORYTYPE_DEVICE ||
      driver().cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address) !=
          CUDA_SUCCESS) {
    return host;
  }
  return device;
}

}  // namespace slip::gpu
