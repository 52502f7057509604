#include "slipstream/transport/cuda_ipc/cuda_ipc_transport.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>

#include "slipstream/base/align_internal.h"
#include "slipstream/gpu/ipc.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/page_internal.h"
#include "slipstream/transport/local_memory_internal.h"
#include "slipstream/transport/stream_calls_internal.h"
#include "slipstream/transport/stream_marks_internal.h"

namespace slip {
namespace {

constexpr std::size_t page_bytes = 4096;

/// What stands before the key of a region's words where the region is a GPU's. It comes from a
/// peer, so every field is checked where it is used.
struct DeviceKey {
  static constexpr std::uint64_t expected = 0x736c69702d677075;  // "slip-gpu"
  std::uint64_t magic = expected;
  std::uint64_t bytes = 0;
  std::uint64_t serial = 0;  // unique in the owner's process
  std::int64_t pid = 0;
  std::int32_t device = gpu::host;    // as the owner numbers it
  std::uint32_t host_key_length = 0;  // of what follows, where the payload is on the host
  gpu::IpcKey memory{};
};

/// None: the key is of a region of the host.
bool read(std::string_view text, DeviceKey* key) {
  if (text.size() < sizeof *key) return false;
  std::memcpy(key, text.data(), sizeof *key);
  return key->magic == DeviceKey::expected;
}

/// Memory of `peer`'s GPU, for copies by `device`.
std::shared_ptr<std::byte> open(int device, int peer, const DeviceKey& key) {
  try {
    return gpu::open_ipc(device, key.memory, key.bytes);
  } catch (const Error& error) {
    if (error.code() == Code::bad_data) throw;
    throw Error(error.code(),
                fmt::format("a region of rank {}: {}; choose transport ucx", peer, error.what()),
                peer);
  }
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
    std::shared_ptr<std::byte> memory;     // keeps `at`, where it is in a region of the host
    std::shared_ptr<const Wakeup> wakeup;  // keeps it where it is in a GPU's
    Word* at = nullptr;
    Word word = 0;
    Bell bell = Bell::worker;

    void operator()() const {
      // Pairs with Region::word.
      std::atomic_ref<Word>(*at).store(word, std::memory_order_release);
      wakeup->ring(bell);
    }
  };

  explicit Streams(std::shared_ptr<const Wakeup> own)
      : marks([own = std::move(own)] {
          own->ring(Bell::worker);
          own->ring(Bell::progress);
        }) {}

  StreamCalls<Announcement> announcements{256};
  StreamMarks marks;
};

CudaIpcTransport::CudaIpcTransport(std::string_view name, WithoutIpc without_ipc,
                                   StreamLimits limits)
    : ShmTransport(name), without_ipc_(without_ipc), limits_(std::move(limits)) {}

/// What is enqueued refers to this.
CudaIpcTransport::~CudaIpcTransport() {
  if (device() != gpu::host) (void)gpu::synchronize(device());
}

void CudaIpcTransport::adopt(int device) {
  const std::lock_guard lock(adopting_);
  if (this->device() == gpu::host) {
    const Region own = allocate_words(sizeof(Word), Bell::worker);  // whose key says how to ring
    streams_ = std::make_unique<Streams>(ShmTransport::attach(-1, own.key()).wakeup);
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
    Region on_host;  // of the payload, where it is there
    std::shared_ptr<std::byte> payload;
  };
  const auto memory = std::make_shared<Memory>();
  memory->payload = gpu::allocate(device, round_up(bytes, gpu::page));
  memory->words = allocate_words(bytes, bell);
  adopt(device);
  DeviceKey key;
  std::string why;
  if (const auto shared = gpu::ipc_key(device, memory->payload.get(), &why)) {
    key.memory = *shared;
  } else if (without_ipc_ == WithoutIpc::on_host) {
    memory->on_host = ShmTransport::allocate(round_up(bytes, page_bytes), bell, gpu::host);
    memory->payload = gpu::lend(device, memory->on_host.data(), memory->on_host.bytes());
    key.host_key_length = static_cast<std::uint32_t>(memory->on_host.key().size());
  } else {
    throw Error(Code::not_supported, why + "; transport auto goes by way of the host");
  }
  key.bytes = bytes;
  key.serial = ++serials;
  key.pid = getpid();
  key.device = device;
  local_memory().add(key.serial, memory->payload);
  std::string text(reinterpret_cast<const char*>(&key), sizeof key);
  return {device,
          {memory, memory->payload.get()},
          memory->words.data(),
          bytes,
          text + memory->on_host.key() + memory->words.key()};
}

RemoteRegion CudaIpcTransport::attach(int peer, std::string_view text) {
  DeviceKey key;
  if (!read(text, &key)) return ShmTransport::attach(peer, text);
  const auto is_damaged = [peer] {
    return Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  };
  text.remove_prefix(sizeof key);
  if (key.host_key_length > text.size()) throw is_damaged();
  RemoteRegion region = ShmTransport::attach(peer, text.substr(key.host_key_length));
  if (key.bytes > region.bytes || key.device < 0) throw is_damaged();
  if (device() == gpu::host) adopt(key.device);
  struct Mapping {
    std::shared_ptr<std::byte> words;
    std::shared_ptr<std::byte> on_host;
    std::shared_ptr<std::byte> payload;
  };
  const auto mapping = std::make_shared<Mapping>();
  mapping->words = region.memory;
  region.detour = key.host_key_length == 0 && !gpu::reaches(device(), key.memory);
  if (key.pid == getpid()) {
    mapping->payload = local_memory().find(key.serial);
    if (!mapping->payload) {
      throw Error(Code::peer_lost, fmt::format("rank {} has freed the region", peer), peer);
    }
    if (key.host_key_length == 0 && !region.detour) gpu::reach(device(), key.device);
    if (key.device != device()) {
      // Its owner's last handle waits for its own GPU alone.
      mapping->payload = {mapping->payload.get(),
                          [owned = mapping->payload, device = device()](std::byte*) {
                            (void)gpu::synchronize(device);
                          }};
    }
  } else if (key.host_key_length > 0) {
    const RemoteRegion on_host = ShmTransport::attach(peer, text.substr(0, key.host_key_length));
    if (key.bytes > on_host.bytes) throw is_damaged();
    mapping->on_host = on_host.memory;
    mapping->payload = gpu::lend(device(), on_host.memory.get(), on_host.bytes);
  } else {
    mapping->payload = open(device(), peer, key);
  }
  region.bytes = key.bytes;
  region.device = key.device;
  region.words = mapping->words.get();
  region.memory = {mapping, mapping->payload.get()};
  // A mapping of a GPU's memory waits for the GPU before it goes, and no put may. So what is under
  // way keeps the words alone.
  struct Owner {
    std::shared_ptr<std::byte> words;
    std::shared_ptr<const Wakeup> wakeup;
  };
  const auto owner = std::make_shared<Owner>(Owner{mapping->words, region.wakeup});
  region.wakeup = {owner, owner->wakeup.get()};
  return region;
}

Status CudaIpcTransport::await_idle(const gpu::Stream& stream) const {
  return await_stream(stream, limits_, [&] { return stream.idle(); });
}

Status CudaIpcTransport::copy(const RemoteRegion& to, std::size_t offset, const void* from,
                              std::size_t bytes, const gpu::Stream& stream) const {
  if (bytes == 0) return {};
  if (Status s = check_source(to, from, device()); !s) return s;
  return gpu::copy(to.memory.get() + offset, from, bytes, stream);
}

Status CudaIpcTransport::put(const RemoteRegion& to, std::size_t offset, const void* from,
                             std::size_t bytes) {
  if (!follows(to)) [[likely]]
    return ShmTransport::put(to, offset, from, bytes);
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  const gpu::Stream stream = gpu::current_stream(device());
  const StreamMarks::Put put(streams_->marks, stream);
  if (to.device != gpu::host) return copy(to, offset, from, bytes, stream);
  if (Status s = await_idle(stream); !s) return s;
  return ShmTransport::put(to, offset, from, bytes);
}

Status CudaIpcTransport::put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                                    std::size_t bytes, std::size_t word_offset, Word word) {
  if (!follows(to)) [[likely]]
    return ShmTransport::put_signal(to, offset, from, bytes, word_offset, word);
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) [[unlikely]]
    return out_of_bounds(to, word_offset, sizeof word);
  const gpu::Stream stream = gpu::current_stream(device());
  const bool is_hosts = to.device == gpu::host;
  if (is_hosts && bytes > 0) {
    // The host's payloads are control messages. They keep their order behind words on the stream.
    if (Status s = await_idle(stream); !s) return s;
    return ShmTransport::put_signal(to, offset, from, bytes, word_offset, word);
  }
  const StreamMarks::Put put(streams_->marks, stream);
  if (Status s = copy(to, offset, from, bytes, stream); !s) return s;
  const Streams::Announcement said{
      is_hosts ? to.memory : nullptr, to.wakeup,
      reinterpret_cast<Word*>((is_hosts ? to.memory.get() : to.words) + word_offset), word,
      to.bell};
  if (bytes == 0 && stream.idle()) {
    said();
    return {};
  }
  StreamCalls<Streams::Announcement>::Place* place = nullptr;
  const auto has_room = [&] { return (place = streams_->announcements.take()) != nullptr; };
  if (Status s = await_stream(stream, limits_, has_room); !s) return s;
  place->item = said;
  return streams_->announcements.enqueue(*place, stream);
}

bool CudaIpcTransport::drained(int) {
  return device() == gpu::host || streams_->marks.passed(gpu::current_stream(device()));
}

}  // namespace slip
