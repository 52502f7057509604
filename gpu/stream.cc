#include "slipstream/gpu/stream.h"

#include "slipstream/gpu/driver_internal.h"
#include "slipstream/gpu/failures_internal.h"

namespace slip::gpu {
namespace {

thread_local const Stream* bound = nullptr;
thread_local bool is_detached = false;

CUstream cuda(const Stream& stream) { return static_cast<CUstream>(stream.handle()); }
CUevent cuda(const Event& event) { return static_cast<CUevent>(event.handle()); }

}  // namespace

Stream::Stream(int device) : device_(device) {
  const OnDevice here(device);
  CUstream stream = nullptr;
  check(driver().cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), device, "making a stream");
  handle_ = std::shared_ptr<void>(stream, [device](void* handle) {
    const OnDevice here_too(device);
    driver().cuStreamDestroy(static_cast<CUstream>(handle));
  });
}

Stream::Stream(int device, void* handle)
    : device_(device), handle_(std::shared_ptr<void>(), handle) {
  context_of(device);
}

Status Stream::wait_for(const Event& event) const {
  const OnDevice here(device_);
  return failure(driver().cuStreamWaitEvent(cuda(*this), cuda(event), CU_EVENT_WAIT_DEFAULT),
                 device_, "waiting for an event");
}

Status Stream::then(void (*function)(void*), void* argument) const {
  const OnDevice here(device_);
  return failure(driver().cuLaunchHostFunc(cuda(*this), function, argument), device_,
                 "enqueuing a call");
}

bool Stream::idle() const {
  const OnDevice here(device_);
  return driver().cuStreamQuery(cuda(*this)) == CUDA_SUCCESS;
}

Status Stream::synchronize() const {
  const OnDevice here(device_);
  return failure(driver().cuStreamSynchronize(cuda(*this)), device_, "waiting for its work");
}

Status Stream::status() const {
  if (Status s = noted(device_); !s) return s;
  const OnDevice here(device_);
  const CUresult result = driver().cuStreamQuery(cuda(*this));
  return result == CUDA_ERROR_NOT_READY ? Status() : failure(result, device_, "doing its work");
}

CurrentStream::CurrentStream(const Stream& stream) : before_(bound) { bound = &stream; }

CurrentStream::CurrentStream(const std::optional<Stream>& stream) : before_(bound) {
  if (stream) bound = &*stream;
}

CurrentStream::~CurrentStream() { bound = before_; }

Detached::Detached() : before_(is_detached) { is_detached = true; }
Detached::~Detached() { is_detached = before_; }

bool detached() { return is_detached; }

Stream current_stream(int device) {
  return bound != nullptr && bound->device() == device ? *bound : Stream(device, nullptr);
}

Status synchronize(int device) {
  const OnDevice here(device);
  return failure(driver().cuCtxSynchronize(), device, "waiting for its work");
}

Event::Event(int device) : device_(device) {
  const OnDevice here(device);
  CUevent event = nullptr;
  check(driver().cuEventCreate(&event, CU_EVENT_DEFAULT), device, "making an event");
  handle_ = std::shared_ptr<void>(event, [device](void* handle) {
    const OnDevice here_too(device);
    driver().cuEventDestroy(static_cast<CUevent>(handle));
  });
}

Status Event::record(const Stream& stream) {
  const OnDevice here(device_);
  return failure(driver().cuEventRecord(cuda(*this), cuda(stream)), device_, "recording an event");
}

bool Event::done() const {
  const OnDevice here(device_);
  return driver().cuEventQuery(cuda(*this)) != CUDA_ERROR_NOT_READY;
}

Duration Event::since(const Event& begin) const {
  const OnDevice here(device_);
  float milliseconds = 0;
  driver().cuEventElapsedTime(&milliseconds, cuda(begin), cuda(*this));
  return from_seconds(static_cast<double>(milliseconds) * 1e-3);
}

}  // namespace slip::gpu
