#include "slipstream/transport/shm/shm_transport.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "slipstream/base/copy.h"
#include "slipstream/transport/shm/segment.h"

namespace slip {
namespace {

/// What a Region's key holds. It comes from a peer, so every field is checked where it is used.
struct RegionKey {
  static constexpr std::uint64_t expected = 0x736c69702d73686d;  // "slip-shm"
  std::uint64_t magic = expected;
  shm::SegmentKey memory;
  shm::SegmentKey control;  // the owner's Doorbell
  std::int32_t progress_fd = -1;
  std::uint32_t bell = 0;
};

std::string pack(const RegionKey& key) { return {reinterpret_cast<const char*>(&key), sizeof key}; }

RegionKey unpack(std::string_view text, int peer) {
  RegionKey key;
  if (text.size() == sizeof key) std::memcpy(&key, text.data(), sizeof key);
  if (text.size() != sizeof key || key.magic != RegionKey::expected || key.memory.bytes == 0 ||
      key.control.bytes < sizeof(Doorbell) ||
      (key.bell != static_cast<std::uint32_t>(Bell::worker) &&
       key.bell != static_cast<std::uint32_t>(Bell::progress))) {
    throw Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  }
  return key;
}

/// How to wake a peer. Workers that are threads share it: n of them would else need n * n
/// descriptors.
std::shared_ptr<const Wakeup> wakeup_of(int peer, const RegionKey& key) {
  static std::mutex mutex;  // guards known; set-up only
  static std::map<std::pair<std::int64_t, std::uint64_t>, std::weak_ptr<const Wakeup>> known;
  const std::lock_guard lock(mutex);
  const std::pair owner(key.control.pid, key.control.serial);
  if (const auto found = known.find(owner); found != known.end()) {
    if (auto wakeup = found->second.lock()) return wakeup;
  }
  const auto control = shm::map_segment(key.control, peer);
  const std::string path = fmt::format("/proc/{}/fd/{}", key.control.pid, key.progress_fd);
  // Read-write, so that a write never meets a pipe without a reader (SIGPIPE).
  const int fd = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    throw Error(errno == ENOENT ? Code::peer_lost : Code::io,
                fmt::format("cannot reach the progress thread of rank {} (process {}): {}", peer,
                            key.control.pid, std::strerror(errno)),
                peer);
  }
  std::shared_ptr<const Wakeup> wakeup(
      new Wakeup{{control, reinterpret_cast<Doorbell*>(control.get())}, fd}, [](const Wakeup* w) {
        close(w->progress_fd);
        delete w;
      });
  std::erase_if(known, [](const auto& entry) { return entry.second.expired(); });
  known[owner] = wakeup;
  return wakeup;
}

}  // namespace

struct __attribute__((visibility("hidden"))) ShmTransport::Impl {
  std::string name;
  shm::Segment control;
  Doorbell* doorbell = nullptr;
  int pipe[2] = {-1, -1};
};

ShmTransport::ShmTransport(std::string_view name) : impl_(std::make_unique<Impl>()) {
  impl_->name = name;
  impl_->control = shm::create_segment(sizeof(Doorbell));
  impl_->doorbell = new (impl_->control.memory.get()) Doorbell;
  impl_->doorbell->writers_fence = !asymmetric_fences();
  if (pipe2(impl_->pipe, O_CLOEXEC | O_NONBLOCK) != 0) throw_errno("cannot create a pipe");
}

ShmTransport::~ShmTransport() {
  for (const int fd : impl_->pipe) {
    if (fd >= 0) close(fd);
  }
}

std::string_view ShmTransport::name() const { return impl_->name; }

std::shared_ptr<Doorbell> ShmTransport::doorbell() const {
  return {impl_->control.memory, impl_->doorbell};
}

Region ShmTransport::allocate(std::size_t bytes, Bell bell, int device) {
  require_host(device, name());
  return publish(shm::create_segment(bytes), bell);
}

Region ShmTransport::allocate_words(std::size_t bytes, Bell bell) {
  return publish(shm::create_segment(bytes, shm::Backing::sparse), bell);
}

Region ShmTransport::publish(const shm::Segment& segment, Bell bell) const {
  RegionKey key;
  key.memory = segment.key;
  key.control = impl_->control.key;
  key.progress_fd = impl_->pipe[1];
  key.bell = static_cast<std::uint32_t>(bell);
  return {segment.memory, segment.key.bytes, pack(key)};
}

RemoteRegion ShmTransport::attach(int peer, std::string_view text) {
  const RegionKey key = unpack(text, peer);
  RemoteRegion region;
  region.peer = peer;
  region.bytes = key.memory.bytes;
  region.bell = static_cast<Bell>(key.bell);
  region.memory = shm::map_segment(key.memory, peer);
  region.wakeup = wakeup_of(peer, key);
  return region;
}

Status ShmTransport::put(const RemoteRegion& to, std::size_t offset, const void* from,
                         std::size_t bytes) {
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  copy_bytes(to.memory.get() + offset, from, bytes);
  return {};
}

Status ShmTransport::put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                                std::size_t bytes, std::size_t word_offset, Word word) {
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) [[unlikely]]
    return out_of_bounds(to, word_offset, sizeof word);
  copy_bytes(to.memory.get() + offset, from, bytes);
  to.signal_mapped(word_offset, word);
  return {};
}

bool ShmTransport::drained(int) { return true; }

int ShmTransport::progress_fd() const { return impl_->pipe[0]; }

void ShmTransport::arm() { announce_sleeper(*impl_->doorbell, Bell::progress); }

void ShmTransport::progress() {
  withdraw_sleeper(*impl_->doorbell, Bell::progress);
  char bytes[64];
  while (read(impl_->pipe[0], bytes, sizeof bytes) > 0) {
  }
}

}  // namespace slip
