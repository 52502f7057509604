#include "slipstream/transport/cuda_ipc/cuda_ipc_transport.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>

#include "slipstream/gpu/ipc.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/transport/local_memory_internal.h"
#include "slipstream/transport/stream_calls_internal.h"

namespace slip {
namespace {

/// What stands before the key of a region's words where the region is a GPU's. It comes from a
/// peer, so every field is checked where it is used.
struct DeviceKey {
  static constexpr std::uint64_t expected = 0x736c69702d677075;  // "slip-gpu"
  std::uint64_t magic = expected;
  std::uint64_t bytes = 0;
  std::uint64_t serial = 0;  // unique in the owner's process
  std::int64_t pid = 0;
  std::int32_t device = gpu::host;  // as the owner numbers it
  std::uint32_t unused = 0;
  gpu::IpcKey memory{};
};

/// None: the key is of a region of the host.
bool read(std::string_view text, DeviceKey* key) {
  if (text.size() < sizeof *key) return false;
  std::memcpy(key, text.data(), sizeof *key);
  return key->magic == DeviceKey::expected;
}

/// Memory of GPUs in this process.
LocalMemory& local_memory() {
  static LocalMemory memory;
  return memory;
}

}  // namespace

/// What is under way on streams.
struct __attribute__((visibility("hidden"))) CudaIpcTransport::Streams {
  /// A word that follows what is enqueued.
  struct Announcement {
    std::shared_ptr<std::byte> memory;  // keeps `at`
    std::shared_ptr<const Wakeup> wakeup;
    Word* at = nullptr;
    Word word = 0;
    Bell bell = Bell::worker;

    void operator()() const {
      // Pairs with Region::word.
      std::atomic_ref<Word>(*at).store(word, std::memory_order_release);
      wakeup->ring(bell);
    }
  };

  explicit Streams(std::shared_ptr<Doorbell> own) : mark(std::move(own)) {}

  StreamCalls<Announcement> announcements{1024};
  StreamMark mark;
};

CudaIpcTransport::CudaIpcTransport(std::string_view name) : ShmTransport(name) {}

/// What is enqueued refers to this.
CudaIpcTransport::~CudaIpcTransport() {
  if (device() != gpu::host) (void)gpu::synchronize(device());
}

void CudaIpcTransport::adopt(int device) {
  const std::lock_guard lock(adopting_);
  if (this->device() == gpu::host) {
    streams_ = std::make_unique<Streams>(doorbell());
    device_.store(device, std::memory_order_release);
  }
  if (this->device() == device) return;
  throw Error(Code::invalid_argument,
              fmt::format("this worker has {} and asks for {}; a worker uses one GPU",
                          gpu::describe(this->device()), gpu::describe(device)));
}

Region CudaIpcTransport::allocate(std::size_t bytes, Bell bell, int device) {
  static std::atomic<std::uint64_t> serials{0};
  if (device == gpu::host) return ShmTransport::allocate(bytes, bell, device);
  struct Memory {
    Region words;
    std::shared_ptr<std::byte> payload;
  };
  const auto memory = std::make_shared<Memory>();
  memory->payload = gpu::allocate(device, bytes);
  memory->words = allocate_words(bytes, bell);
  adopt(device);
  DeviceKey key;
  key.bytes = bytes;
  key.serial = ++serials;
  key.pid = getpid();
  key.device = device;
  key.memory = gpu::ipc_key(device, memory->payload.get());
  local_memory().add(key.serial, memory->payload);
  std::string text(reinterpret_cast<const char*>(&key), sizeof key);
  return {device,
          {memory, memory->payload.get()},
          memory->words.data(),
          bytes,
          text + memory->words.key()};
}

RemoteRegion CudaIpcTransport::attach(int peer, std::string_view text) {
  DeviceKey key;
  if (!read(text, &key)) return ShmTransport::attach(peer, text);
  RemoteRegion region = ShmTransport::attach(peer, text.substr(sizeof key));
  if (key.bytes > region.bytes || key.device < 0) {
    throw Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  }
  if (device() == gpu::host) adopt(key.device);
  struct Mapping {
    std::shared_ptr<std::byte> words;
    std::shared_ptr<std::byte> payload;
  };
  const auto mapping = std::make_shared<Mapping>();
  mapping->words = region.memory;
  if (key.pid == getpid()) {
    mapping->payload = local_memory().find(key.serial);
    if (!mapping->payload) {
      throw Error(Code::peer_lost, fmt::format("rank {} has freed the region", peer), peer);
    }
    gpu::reach(device(), key.device);
  } else {
    mapping->payload = gpu::open_ipc(device(), key.memory, key.bytes);
  }
  region.bytes = key.bytes;
  region.device = key.device;
  region.words = mapping->words.get();
  region.memory = {mapping, mapping->payload.get()};
  return region;
}

Status CudaIpcTransport::copy(const RemoteRegion& to, std::size_t offset, const void* from,
                              std::size_t bytes, const gpu::Stream& stream) const {
  if (bytes == 0) return {};
  if (Status s = check_source(to, from, device()); !s) return s;
  return gpu::copy(to.memory.get() + offset, from, bytes, stream);
}

Status CudaIpcTransport::put(const RemoteRegion& to, std::size_t offset, const void* from,
                             std::size_t bytes) {
  if (device() == gpu::host) [[likely]]
    return ShmTransport::put(to, offset, from, bytes);
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  const gpu::Stream stream = gpu::current_stream(device());
  streams_->mark.count();
  if (to.device != gpu::host) return copy(to, offset, from, bytes, stream);
  if (Status s = stream.synchronize(); !s) return s;
  return ShmTransport::put(to, offset, from, bytes);
}

Status CudaIpcTransport::put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                                    std::size_t bytes, std::size_t word_offset, Word word) {
  if (device() == gpu::host) [[likely]]
    return ShmTransport::put_signal(to, offset, from, bytes, word_offset, word);
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) [[unlikely]]
    return out_of_bounds(to, word_offset, sizeof word);
  const gpu::Stream stream = gpu::current_stream(device());
  const bool is_hosts = to.device == gpu::host;
  if (is_hosts && bytes > 0) {
    // The host's payloads are control messages. They keep their order behind words on the stream.
    if (Status s = stream.synchronize(); !s) return s;
    return ShmTransport::put_signal(to, offset, from, bytes, word_offset, word);
  }
  if (Status s = copy(to, offset, from, bytes, stream); !s) return s;
  streams_->mark.count();
  const Streams::Announcement said{
      to.memory, to.wakeup,
      reinterpret_cast<Word*>((is_hosts ? to.memory.get() : to.words) + word_offset), word,
      to.bell};
  if (bytes == 0 && stream.idle()) {
    said();
    return {};
  }
  auto* const place = streams_->announcements.take(stream);
  if (place == nullptr) return stream.status();
  place->call = said;
  return streams_->announcements.enqueue(place, stream);
}

bool CudaIpcTransport::drained(int) {
  return device() == gpu::host || streams_->mark.passed(gpu::current_stream(device()));
}

}  // namespace slip
