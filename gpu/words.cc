#include "slipstream/gpu/words.h"

#include <fmt/format.h>

#include "slipstream/gpu/driver_internal.h"

namespace slip::gpu {

bool can_wait_for_words(int device) {
  int can = 0;
  check(driver().cuDeviceGetAttribute(&can, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS,
                                      handle_of(device)),
        device, "asking what its streams can do");
  return can != 0;
}

std::shared_ptr<std::byte> pin(int device, std::byte* memory, std::size_t bytes) {
  const OnDevice here(device);
  check(driver().cuMemHostRegister(memory, bytes,
                                   CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP),
        device, fmt::format("pinning {} bytes of the host's memory", bytes));
  return {memory, [device](std::byte* pinned) {
            const OnDevice here_too(device);
            driver().cuMemHostUnregister(pinned);
          }};
}

Status wait_for_word(const std::uint64_t* word, std::uint64_t value, const Stream& stream) {
  const OnDevice here(stream.device());
  CUdeviceptr address = 0;
  CUresult result =
      driver().cuMemHostGetDevicePointer(&address, const_cast<std::uint64_t*>(word), 0);
  if (result == CUDA_SUCCESS) {
    result = driver().cuStreamWaitValue64(static_cast<CUstream>(stream.handle()), address, value,
                                          CU_STREAM_WAIT_VALUE_GEQ);
  }
  return failure(result, stream.device(), "waiting for a word");
}

}  // namespace slip::gpu
