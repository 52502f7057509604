// Where CUDA's toolkit was not there when this was built.

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/failures_internal.h"
#include "slipstream/gpu/ipc.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/rdma.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/gpu/words.h"

namespace slip::gpu {

Status usable() {
  return {Code::not_supported,
          "no GPU can be used: built without CUDA (package nvidia-cuda-toolkit)"};
}

int device_count() { return 0; }
std::string device_name(int) { throw Error(usable()); }
std::string device_uuid(int) { throw Error(usable()); }
bool has_peer_access(int, int) { throw Error(usable()); }
int device_of(const void*) { return host; }
bool reaches(int, const void*) { return false; }
bool host_reaches(const void*) { return true; }

void note(const Status&, int) {}

Stream::Stream(int device) : device_(device) { throw Error(usable()); }
Stream::Stream(int device, void*) : device_(device) { throw Error(usable()); }
Status Stream::wait_for(const Event&) const { return usable(); }
Status Stream::then(void (*)(void*), void*) const { return usable(); }
bool Stream::idle() const { return true; }
Status Stream::synchronize() const { return usable(); }
Status Stream::status() const { return usable(); }

CurrentStream::CurrentStream(const Stream&) : before_(nullptr) {}
CurrentStream::CurrentStream(const std::optional<Stream>&) : before_(nullptr) {}
CurrentStream::~CurrentStream() = default;
Detached::Detached() : before_(false) {}
Detached::~Detached() = default;
bool detached() { return false; }
Stream current_stream(int device) { return {device, nullptr}; }
Status synchronize(int) { return usable(); }

Event::Event(int device) : device_(device) { throw Error(usable()); }
Status Event::record(const Stream&) { return usable(); }
bool Event::done() const { return true; }
Duration Event::since(const Event&) const { return Duration(0); }

std::shared_ptr<std::byte> allocate(int, std::size_t) { throw Error(usable()); }
std::shared_ptr<std::byte> allocate_pinned(int, std::size_t) { throw Error(usable()); }
std::optional<IpcKey> ipc_key(int, const std::byte*, std::string*) { throw Error(usable()); }
std::shared_ptr<std::byte> lend(int, std::byte*, std::size_t) { throw Error(usable()); }
bool reaches(int, const IpcKey&) { throw Error(usable()); }
std::shared_ptr<std::byte> open_ipc(int, const IpcKey&, std::size_t) { throw Error(usable()); }
void reach(int, int) { throw Error(usable()); }
int open_dma_buf(int, const std::byte*, std::size_t, std::string*) { throw Error(usable()); }
std::string why_no_flush(int) { throw Error(usable()); }
Status flush_network_writes(int) { return usable(); }
std::string pci_address(int) { throw Error(usable()); }
bool can_wait_for_words(int) { throw Error(usable()); }
std::shared_ptr<std::byte> pin(int, std::byte*, std::size_t) { throw Error(usable()); }
Status wait_for_word(const std::uint64_t*, std::uint64_t, const Stream&) { return usable(); }
Status copy(void*, const void*, std::size_t, const Stream&) { return usable(); }

}  // namespace slip::gpu
