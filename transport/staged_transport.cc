#include "slipstream/transport/staged_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "slipstream/base/align_internal.h"
#include "slipstream/gpu/failures_internal.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/page_internal.h"
#include "slipstream/gpu/rdma.h"
#include "slipstream/transport/departures_internal.h"
#include "slipstream/transport/stream_calls_internal.h"

namespace slip {
namespace {

/// What stands before the network's key of a region that is a GPU's. It comes from a peer.
struct DeviceKey {
  static constexpr std::uint64_t expected = 0x736c69702d737467;  // "slip-stg"
  std::uint64_t magic = expected;
  std::int64_t device = gpu::host;  // as the owner numbers it
};

/// The receiving end. What fails here shows in the stream's status, which the world watches.
class Arrivals final : public Announcer {
 public:
  /// `network` outlives it.
  Arrivals(int device, NetworkTransport& network) : network_(network), stream_(device) {}
  ~Arrivals() override { (void)stream_.synchronize(); }

  const gpu::Stream& stream() const { return stream_; }

  void announce(const std::shared_ptr<std::byte>& memory, Word* at, Word word, Bell bell) override {
    const Announcement said{&network_, memory, at, word, bell};
    if (stream_.idle()) return said();
    auto& place = words_.take_or_add();
    place.item = said;
    gpu::note(words_.enqueue(place, stream_), stream_.device());
  }

 private:
  struct Announcement {
    NetworkTransport* network = nullptr;
    std::shared_ptr<std::byte> memory;
    Word* at = nullptr;
    Word word = 0;
    Bell bell = Bell::worker;

    void operator()() const {
      // Pairs with Region::word.
      std::atomic_ref<Word>(*at).store(word, std::memory_order_release);
      network->ring(bell);
    }
  };

  NetworkTransport& network_;
  const gpu::Stream stream_;  // of all that comes
  StreamCalls<Announcement> words_{64};
};

/// A region of a GPU.
class GpuLanding final : public Landing {
 public:
  /// `pinned` is where the network writes, or null where it writes into the GPU's memory.
  GpuLanding(std::shared_ptr<Arrivals> arrivals, Region region, std::shared_ptr<std::byte> pinned,
             Bell bell)
      : arrivals_(std::move(arrivals)),
        region_(std::move(region)),
        pinned_(std::move(pinned)),
        bell_(bell) {}
  ~GpuLanding() override { (void)arrivals_->stream().synchronize(); }

  void place(std::size_t offset, const std::byte* from, std::size_t bytes) override {
    if (!pinned_) {
      keep(gpu::copy(region_.data() + offset, from, bytes, arrivals_->stream()));
      // What this worker puts to itself is in pinned memory, which is read later, and used again
      // when this returns.
      if (gpu::reaches(region_.device(), from)) keep(arrivals_->stream().synchronize());
    } else if (bytes > 0) {
      std::memcpy(pinned_.get() + offset, from, bytes);
      came(offset, bytes);
    }
  }

  void came(std::size_t offset, std::size_t bytes) override {
    keep(pinned_ ? gpu::copy(region_.data() + offset, pinned_.get() + offset, bytes,
                             arrivals_->stream())
                 : gpu::flush_network_writes(region_.device()));
  }

  /// The word is kept by this, which goes after the call: who frees a GPU's memory waits for the
  /// GPU, and a call's place is used again where nobody may.
  void announce(std::size_t offset, Word word) override {
    if (is_lost_) return;
    arrivals_->announce(nullptr, reinterpret_cast<Word*>(region_.words() + offset), word, bell_);
  }

 private:
  void keep(const Status& status) {
    if (status) return;
    is_lost_ = true;
    gpu::note(status, region_.device());
  }

  const std::shared_ptr<Arrivals> arrivals_;
  const Region region_;
  const std::shared_ptr<std::byte> pinned_;
  const Bell bell_;
  bool is_lost_ = false;  // something that has come
};

}  // namespace

/// What a worker with memory of a GPU has.
struct __attribute__((visibility("hidden"))) StagedTransport::Ends {
  Ends(int of, NetworkTransport& over, const StreamLimits& limits)
      : device(of),
        network(over),
        arrivals(std::make_shared<Arrivals>(of, over)),
        departures(of, over, limits) {}

  Status put(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
             const std::optional<Departures::WordAt>& word) {
    // What fails later, the network or the world's watch of the GPU tells.
    if (Status s = network.put(to, 0, nullptr, 0); !s) return s;
    if (Status s = gpu::noted(device); !s) return s;
    if (bytes == 0 && !word) return {};
    const gpu::Stream stream = gpu::current_stream(device);
    // The host's payloads are control messages. They keep their order behind what is enqueued.
    const bool is_hosts = to.device == gpu::host && bytes > 0;
    if (is_hosts || (bytes == 0 && stream.idle())) {
      if (is_hosts) {
        if (Status s = departures.await_idle(stream); !s) return s;
      }
      departures.post();
      return word ? network.put_signal(to, offset, from, bytes, word->offset, word->word)
                  : network.put(to, offset, from, bytes);
    }
    if (bytes > 0) {
      if (Status s = check_source(to, from, device); !s) return s;
    }
    return departures.put(to, offset, static_cast<const std::byte*>(from), bytes, word, stream);
  }

  const int device;
  NetworkTransport& network;
  const std::shared_ptr<Arrivals> arrivals;
  Departures departures;
};

StagedTransport::StagedTransport(std::unique_ptr<NetworkTransport> network, StreamLimits limits)
    : network_(std::move(network)), limits_(std::move(limits)) {}

/// What is enqueued refers to this.
StagedTransport::~StagedTransport() {
  if (device() == gpu::host) return;
  (void)gpu::synchronize(device());
  ends_->departures.post();
  network_->announce_by(nullptr);
  (void)ends_->arrivals->stream().synchronize();  // who posts takes in what has come
}

void StagedTransport::adopt(int device) {
  const std::lock_guard lock(adopting_);
  if (this->device() == gpu::host) {
    ends_ = std::make_unique<Ends>(device, *network_, limits_);
    network_->announce_by(ends_->arrivals);
    device_.store(device, std::memory_order_release);
  }
  if (this->device() == device) return;
  throw Error(Code::invalid_argument,
              fmt::format("this worker has {} and asks for {}; a worker uses one GPU",
                          gpu::describe(this->device()), gpu::describe(device)));
}

Region StagedTransport::allocate(std::size_t bytes, Bell bell, int device) {
  if (device == gpu::host) return network_->allocate(bytes, bell, device);
  struct Memory {
    std::shared_ptr<std::byte> payload, words;
  };
  const auto memory = std::make_shared<Memory>();
  memory->payload = gpu::allocate(device, round_up(bytes, gpu::page));
  memory->words = gpu::allocate_pinned(device, bytes);
  return share({device, {memory, memory->payload.get()}, memory->words.get(), bytes, std::string()},
               bell);
}

Region StagedTransport::share(const Region& region, Bell bell) {
  const int device = region.device();
  if (device == gpu::host) return network_->share(region, bell);
  adopt(device);
  struct Memory {
    std::shared_ptr<NetworkTransport> network;  // lives as long as what is shared
    Region shared;
    Region region;
  };
  const auto memory = std::make_shared<Memory>();
  memory->network = network_;
  const auto landing = [&](std::shared_ptr<std::byte> pinned) {
    return std::make_shared<GpuLanding>(ends_->arrivals, region, std::move(pinned), bell);
  };
  std::string why;
  if (auto direct = network_->share_gpu(region, bell, landing(nullptr), &why)) {
    memory->shared = *direct;
  } else {
    const auto pinned = gpu::allocate_pinned(device, region.bytes());
    memory->shared = network_->share(pinned, region.bytes(), bell, landing(pinned));
  }
  memory->region = region;
  const DeviceKey key{.device = device};
  std::string text(reinterpret_cast<const char*>(&key), sizeof key);
  text += memory->shared.key();
  return {device, {memory, region.data()}, region.words(), region.bytes(), std::move(text)};
}

RemoteRegion StagedTransport::attach(int peer, std::string_view text) {
  DeviceKey key{.magic = 0};
  if (text.size() >= sizeof key) std::memcpy(&key, text.data(), sizeof key);
  if (key.magic != DeviceKey::expected) return network_->attach(peer, text);
  if (key.device < 0 || key.device >= 1 << 16) {
    throw Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  }
  RemoteRegion region = network_->attach(peer, text.substr(sizeof key));
  region.device = static_cast<int>(key.device);
  if (device() == gpu::host) adopt(region.device);
  return region;
}

Status StagedTransport::put(const RemoteRegion& to, std::size_t offset, const void* from,
                            std::size_t bytes) {
  if (!follows(to)) [[likely]]
    return network_->put(to, offset, from, bytes);
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  return ends_->put(to, offset, from, bytes, std::nullopt);
}

Status StagedTransport::put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                                   std::size_t bytes, std::size_t word_offset, Word word) {
  if (!follows(to)) [[likely]]
    return network_->put_signal(to, offset, from, bytes, word_offset, word);
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) [[unlikely]]
    return out_of_bounds(to, word_offset, sizeof word);
  return ends_->put(to, offset, from, bytes, Departures::WordAt{word_offset, word});
}

bool StagedTransport::drained(int peer) {
  if (device() == gpu::host) return network_->drained(peer);
  return ends_->departures.posted(gpu::current_stream(device())) && network_->drained(peer);
}

void StagedTransport::progress() {
  network_->progress();
  if (device() != gpu::host) ends_->departures.post();
}

void StagedTransport::drive() {
  if (device() != gpu::host) ends_->departures.post();
  network_->drive();
}

}  // namespace slip
