#include "slipstream/transport/staged_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/rdma.h"
#include "slipstream/transport/stream_calls_internal.h"

namespace slip {
namespace {

/// What stands before the network's key of a region that is a GPU's. It comes from a peer.
struct DeviceKey {
  static constexpr std::uint64_t expected = 0x736c69702d737467;  // "slip-stg"
  std::uint64_t magic = expected;
  std::int64_t device = gpu::host;  // as the owner numbers it
};

constexpr std::size_t piece_bytes = std::size_t{512} << 10;
constexpr std::size_t pieces = 16;
constexpr std::size_t gpu_page = std::size_t{2} << 20;

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
    auto* const place = words_.take_or_add();
    place->call = said;
    (void)words_.enqueue(place, stream_);
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
        words_(std::make_shared<Region>(region_), region_.words()),
        pinned_(std::move(pinned)),
        bell_(bell) {}
  ~GpuLanding() override { (void)arrivals_->stream().synchronize(); }

  void place(std::size_t offset, const std::byte* from, std::size_t bytes) override {
    if (!pinned_) {
      (void)gpu::copy(region_.data() + offset, from, bytes, arrivals_->stream());
    } else if (bytes > 0) {
      std::memcpy(pinned_.get() + offset, from, bytes);
      came(offset, bytes);
    }
  }

  void came(std::size_t offset, std::size_t bytes) override {
    if (!pinned_) return;
    (void)gpu::copy(region_.data() + offset, pinned_.get() + offset, bytes, arrivals_->stream());
  }

  void announce(std::size_t offset, Word word) override {
    if (!pinned_ && !gpu::flush_network_writes(region_.device())) return;
    arrivals_->announce(words_, reinterpret_cast<Word*>(words_.get() + offset), word, bell_);
  }

 private:
  const std::shared_ptr<Arrivals> arrivals_;
  const Region region_;
  const std::shared_ptr<std::byte> words_;
  const std::shared_ptr<std::byte> pinned_;
  const Bell bell_;
};

}  // namespace

/// What a worker with memory of a GPU has: the receiving end, and of the sending one what is on its
/// way.
struct __attribute__((visibility("hidden"))) StagedTransport::Ends {
  /// A piece of a put, once it is in pinned memory.
  struct Piece {
    Ends* ends = nullptr;
    std::byte* pinned = nullptr;  // its own
    RemoteRegion to;
    std::size_t offset = 0;
    std::size_t bytes = 0;
    std::optional<Signal> signal;

    void operator()() const {
      NetworkTransport& network = ends->network;
      const Status status =
          signal ? network.put_signal(to, offset, pinned, bytes, signal->offset, signal->word)
                 : network.put(to, offset, pinned, bytes);
      if (!status) ends->fail(status);
    }
  };

  Ends(int device, NetworkTransport& over)
      : network(over),
        arrivals(std::make_shared<Arrivals>(device, over)),
        memory(gpu::allocate_pinned(device, pieces * piece_bytes)),
        mark(over.doorbell()) {}

  /// For a place that is taken for the first time.
  std::byte* next_pinned() {
    return memory.get() + piece_bytes * used.fetch_add(1, std::memory_order_relaxed);
  }

  void fail(const Status& status) {
    const std::lock_guard lock(mutex);
    if (failure) failure = status;
  }
  Status first_failure() {
    const std::lock_guard lock(mutex);
    return failure;
  }

  NetworkTransport& network;
  const std::shared_ptr<Arrivals> arrivals;
  const std::shared_ptr<std::byte> memory;
  std::atomic<std::size_t> used{0};
  StreamCalls<Piece> calls{pieces};
  StreamMark mark;
  std::mutex mutex;  // guards failure
  Status failure;    // of a piece; told by the next put
};

StagedTransport::StagedTransport(std::unique_ptr<NetworkTransport> network)
    : network_(std::move(network)) {}

/// What is enqueued refers to this.
StagedTransport::~StagedTransport() {
  if (device() == gpu::host) return;
  (void)gpu::synchronize(device());
  network_->announce_by(nullptr);
}

void StagedTransport::adopt(int device) {
  const std::lock_guard lock(adopting_);
  if (this->device() == gpu::host) {
    ends_ = std::make_unique<Ends>(device, *network_);
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
  // Whole pages of the GPU's, so that nothing else is shared with it.
  memory->payload = gpu::allocate(device, (bytes + gpu_page - 1) / gpu_page * gpu_page);
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
  if (device() == gpu::host) [[likely]]
    return network_->put(to, offset, from, bytes);
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  return post(to, offset, from, bytes, nullptr);
}

Status StagedTransport::put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                                   std::size_t bytes, std::size_t word_offset, Word word) {
  if (device() == gpu::host) [[likely]]
    return network_->put_signal(to, offset, from, bytes, word_offset, word);
  if (!to.contains(offset, bytes)) [[unlikely]]
    return out_of_bounds(to, offset, bytes);
  if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) [[unlikely]]
    return out_of_bounds(to, word_offset, sizeof word);
  const Signal signal{word_offset, word};
  return post(to, offset, from, bytes, &signal);
}

Status StagedTransport::post(const RemoteRegion& to, std::size_t offset, const void* from,
                             std::size_t bytes, const Signal* signal) {
  if (Status s = ends_->first_failure(); !s) return s;
  const gpu::Stream stream = gpu::current_stream(device());
  if (to.device == gpu::host && bytes > 0) {
    // The host's payloads are control messages. They keep their order behind what is enqueued.
    if (Status s = stream.synchronize(); !s) return s;
    return signal != nullptr
               ? network_->put_signal(to, offset, from, bytes, signal->offset, signal->word)
               : network_->put(to, offset, from, bytes);
  }
  if (bytes == 0 && signal == nullptr) return {};
  if (bytes > 0) {
    if (Status s = check_source(to, from, device()); !s) return s;
  }
  ends_->mark.count();
  std::size_t done = 0;
  do {
    auto* const place = ends_->calls.take(stream);
    if (place == nullptr) return stream.status();
    Ends::Piece& piece = place->call;
    piece.ends = ends_.get();
    if (piece.pinned == nullptr) piece.pinned = ends_->next_pinned();
    piece.to = to;
    piece.offset = offset + done;
    piece.bytes = std::min(piece_bytes, bytes - done);
    const auto* source = static_cast<const std::byte*>(from) + done;
    done += piece.bytes;
    piece.signal.reset();
    if (done == bytes && signal != nullptr) piece.signal = *signal;
    if (Status s = gpu::copy(piece.pinned, source, piece.bytes, stream); !s) {
      ends_->calls.give_back(place);
      return s;
    }
    if (Status s = ends_->calls.enqueue(place, stream); !s) return s;
  } while (done < bytes);
  return {};
}

bool StagedTransport::drained(int peer) {
  if (device() == gpu::host) return network_->drained(peer);
  return ends_->mark.passed(gpu::current_stream(device())) && network_->drained(peer);
}

}  // namespace slip
