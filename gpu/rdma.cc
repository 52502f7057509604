#include "slipstream/gpu/rdma.h"

#include <unistd.h>

#include <cctype>

#include "slipstream/base/align_internal.h"
#include "slipstream/gpu/driver_internal.h"

namespace slip::gpu {
namespace {

int attribute(int device, CUdevice_attribute which) {
  int value = 0;
  // A driver that does not know the question has nothing of it.
  return driver().cuDeviceGetAttribute(&value, which, handle_of(device)) == CUDA_SUCCESS ? value
                                                                                         : 0;
}

bool needs_flush(int device) {
  return attribute(device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING) <
         CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER;
}

}  // namespace

int open_dma_buf(int device, const std::byte* memory, std::size_t bytes, std::string* why) {
  if (attribute(device, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED) == 0) {
    *why = "the driver has none (the open kernel modules have)";
    return -1;
  }
  const OnDevice here(device);
  const auto host_page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  int fd = -1;
  const CUresult result = driver().cuMemGetHandleForAddressRange(
      &fd, reinterpret_cast<CUdeviceptr>(memory), round_up(bytes, host_page),
      CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
  if (result == CUDA_SUCCESS) return fd;
  const char* text = "unknown error";
  driver().cuGetErrorString(result, &text);
  *why = text;
  return -1;
}

std::string why_no_flush(int device) {
  if (attribute(device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED) == 0) {
    return "the GPU lets no other device write its memory (GPUDirect RDMA)";
  }
  const int options = attribute(device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS);
  if (!needs_flush(device) || (options & CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST) != 0) {
    return "";
  }
  return "the driver cannot flush what other devices have written";
}

Status flush_network_writes(int device) {
  if (!needs_flush(device)) return {};
  const OnDevice here(device);
  return failure(
      driver().cuFlushGPUDirectRDMAWrites(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX,
                                          CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER),
      device, "flushing what a network has written");
}

std::string pci_address(int device) {
  char address[32] = {};
  check(driver().cuDeviceGetPCIBusId(address, sizeof address, handle_of(device)), device,
        "asking where it is");
  std::string text = address;
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace slip::gpu
