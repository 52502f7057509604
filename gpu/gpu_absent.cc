// Where CUDA's toolkit was not there when this was built.

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"

namespace slip::gpu {

Status usable() {
  return {Code::not_supported,
          "no GPU can be used: built without CUDA (package nvidia-cuda-toolkit)"};
}

int device_count() { return 0; }
std::string device_name(int) { throw Error(usable()); }
int device_of(const void*) { return host; }

Stream::Stream(int device) : device_(device) { throw Error(usable()); }
Stream::Stream(int device, void*) : device_(device) { throw Error(usable()); }
Status Stream::wait_for(const Event&) const { return usable(); }
Status Stream::then(void (*)(void*), void*) const { return usable(); }
Status Stream::synchronize() const { return usable(); }
Status Stream::status() const { return usable(); }

CurrentStream::CurrentStream(const Stream&) : before_(nullptr) {}
CurrentStream::~CurrentStream() = default;
Stream current_stream(int device) { return {device, nullptr}; }

Event::Event(int device) : device_(device) { throw Error(usable()); }
Status Event::record(const Stream&) { return usable(); }
bool Event::done() const { return true; }
Duration Event::since(const Event&) const { return Duration(0); }

std::shared_ptr<std::byte> allocate(int, std::size_t) { throw Error(usable()); }
std::shared_ptr<std::byte> allocate_pinned(int, std::size_t) { throw Error(usable()); }
Status copy(void*, const void*, std::size_t, const Stream&) { return usable(); }

}  // namespace slip::gpu
