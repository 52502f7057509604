#include "slipstream/gpu/device.h"

#include "slipstream/gpu/driver_internal.h"

namespace slip::gpu {
namespace {

/// What the driver knows of memory.
struct Found {
  unsigned type = 0;  // none: it does not know it
  int device = host;
};

Found find(const void* memory) {
  Found found;
  if (!driver().usable) return found;
  // Memory that the driver does not know has no type here; asked for one attribute it is an error.
  CUpointer_attribute attributes[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                      CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
  void* values[] = {&found.type, &found.device};
  const CUresult result =
      driver().cuPointerGetAttributes(2, attributes, values, reinterpret_cast<CUdeviceptr>(memory));
  return result == CUDA_SUCCESS ? found : Found();
}

}  // namespace

Status usable() { return driver().usable; }

int device_count() { return driver().devices; }

std::string device_name(int device) {
  char name[256] = {};
  check(driver().cuDeviceGetName(name, sizeof name, handle_of(device)), device, "asking its name");
  return name;
}

std::string device_uuid(int device) { return to_string(uuid_of(device)); }

int device_of(const void* memory) {
  const Found found = find(memory);
  return found.type == CU_MEMORYTYPE_DEVICE ? found.device : host;
}

bool reaches(int device, const void* memory) {
  const Found found = find(memory);
  return found.type == CU_MEMORYTYPE_HOST ||
         (found.type == CU_MEMORYTYPE_DEVICE && found.device == device);
}

bool host_reaches(const void* memory) {
  if (!driver_is_loaded() || device_of(memory) == host) return true;
  int managed = 0;
  return driver().cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                        reinterpret_cast<CUdeviceptr>(memory)) == CUDA_SUCCESS &&
         managed != 0;
}

bool has_peer_access(int device, int other) {
  int can = 0;
  check(driver().cuDeviceCanAccessPeer(&can, handle_of(device), handle_of(other)), device,
        "asking whether it reaches GPU " + std::to_string(other));
  return can != 0;
}

}  // namespace slip::gpu
