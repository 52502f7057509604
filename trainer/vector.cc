#include <cstring>
#include <new>

#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

constexpr std::align_val_t alignment{64};

std::shared_ptr<std::byte> zeroed(std::size_t bytes) {
  std::shared_ptr<std::byte> memory(static_cast<std::byte*>(::operator new(bytes, alignment)),
                                    [](std::byte* p) { ::operator delete(p, alignment); });
  std::memset(memory.get(), 0, bytes);
  return memory;
}

}  // namespace

Vector::Vector(std::size_t count, Dtype dtype, int device)
    : memory_(device == gpu::host ? zeroed(count * size_of(dtype))
                                  : gpu::allocate(device, count * size_of(dtype))),
      view_{memory_.get(), count, dtype, device} {}

Status transfer(VectorView to, ConstVectorView from) {
  kernels::copy(to, from);
  const int device = to.on_gpu() ? to.device : from.device;
  return device == gpu::host ? Status() : gpu::current_stream(device).synchronize();
}

}  // namespace slip
