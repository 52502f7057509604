#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/kernels/memory_internal.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

/// What is enqueued so far is done.
Status await_stream(const World& world, const gpu::Stream& stream) {
  try {
    gpu::Event mark(stream.device());
    if (Status s = mark.record(stream); !s) return s;
    return world.wait_for_gpu(mark, "the GPU to do what is enqueued");
  } catch (const Error& error) {
    return error.status();
  }
}

}  // namespace

Vector::Vector(std::size_t count, Dtype dtype, int device)
    : memory_(allocate_vector(device, count * size_of(dtype))),
      view_{memory_.get(), count, dtype, device} {}

void remember(Vector& kept, ConstVectorView x) {
  if (kept.view().data == nullptr) kept = Vector(x);
  kernels::copy(kept.view(), x);
}

Status transfer(const World& world, VectorView to, ConstVectorView from) {
  const int device = to.on_gpu() ? to.device : from.device;
  // Before the copy, for which the driver would wait for ever; after an abort no stream waits.
  if (device != gpu::host && !world.aborted()) {
    if (Status s = await_stream(world, gpu::current_stream(device)); !s) return s;
  }
  kernels::copy(to, from);
  if (device == gpu::host) return {};
  const gpu::Stream stream = gpu::current_stream(device);
  if (Status s = stream.synchronize(); !s) return s;
  return stream.status();  // where a copy that was not enqueued shows
}

}  // namespace slip
