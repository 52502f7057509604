#include "slipstream/gpu/memory.h"

#include <cstring>
#include <new>

#include "slipstream/gpu/device.h"
#include "slipstream/kernels/memory_internal.h"

namespace slip {

std::shared_ptr<std::byte> allocate_vector(int device, std::size_t bytes) {
  if (device != gpu::host) return gpu::allocate(device, bytes);
  constexpr std::align_val_t alignment{64};
  std::shared_ptr<std::byte> memory(static_cast<std::byte*>(::operator new(bytes, alignment)),
                                    [](std::byte* p) { ::operator delete(p, alignment); });
  std::memset(memory.get(), 0, bytes);
  return memory;
}

}  // namespace slip
