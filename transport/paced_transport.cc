#include "slipstream/transport/paced_transport.h"

#include <fmt/format.h>

#include "slipstream/base/steady_clock_internal.h"

namespace slip {
namespace {

/// What `attach` hides in a region's handle: the region of the transport below.
const RemoteRegion& below(const RemoteRegion& region) {
  return *reinterpret_cast<const RemoteRegion*>(region.memory.get());
}

}  // namespace

Time PacedNetwork::arrival(int from, int to, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  return network_.arrives(network_.reaches(steady_now(), from, to, bytes), from, to, bytes);
}

PacedTransport::PacedTransport(std::unique_ptr<Transport> inner,
                               std::shared_ptr<PacedNetwork> network, int rank,
                               std::function<void()> wake)
    : inner_(std::move(inner)),
      network_(std::move(network)),
      rank_(rank),
      wake_(std::move(wake)),
      delayer_(make_delay_thread()) {}

PacedTransport::~PacedTransport() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  delayer_.reset();  // runs the deliveries that are left
}

/// What is copied to wait for its time is the host's.
Region PacedTransport::allocate(std::size_t bytes, Bell bell, int device) {
  require_host(device, fmt::format("{} with modelled links", name()));
  return inner_->allocate(bytes, bell, device);
}

RemoteRegion PacedTransport::attach(int peer, std::string_view key) {
  const auto region = std::make_shared<RemoteRegion>(inner_->attach(peer, key));
  return {peer,
          region->bytes,
          region->bell,
          {region, reinterpret_cast<std::byte*>(region.get())},
          nullptr};
}

Status PacedTransport::put(const RemoteRegion& to, std::size_t offset, const void* from,
                           std::size_t bytes) {
  return post(to, offset, from, bytes, std::nullopt);
}

Status PacedTransport::put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                                  std::size_t bytes, std::size_t word_offset, Word word) {
  if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) {
    return out_of_bounds(to, word_offset, sizeof word);
  }
  return post(to, offset, from, bytes, Signal{word_offset, word});
}

Status PacedTransport::post(const RemoteRegion& to, std::size_t offset, const void* from,
                            std::size_t bytes, std::optional<Signal> signal) {
  if (!to.contains(offset, bytes)) return out_of_bounds(to, offset, bytes);
  std::unique_lock lock(mutex_);
  Peer& peer = peers_[to.peer];
  if (!peer.failure) return peer.failure;
  const Time due = network_->arrival(rank_, to.peer, bytes + (signal ? sizeof(Word) : 0));
  if (peer.waiting.empty() && due <= steady_now()) {
    lock.unlock();
    return put_now(to, offset, from, bytes, signal);
  }
  const auto* source = static_cast<const std::byte*>(from);
  peer.waiting.push_back({due, to, offset, {source, source + bytes}, signal});
  if (peer.waiting.size() == 1) {
    delayer_->after(due - steady_now(), [this, to = to.peer] { deliver(to); });
  }
  return {};
}

Status PacedTransport::put_now(const RemoteRegion& to, std::size_t offset, const void* from,
                               std::size_t bytes, const std::optional<Signal>& signal) {
  return signal ? inner_->put_signal(below(to), offset, from, bytes, signal->offset, signal->word)
                : inner_->put(below(to), offset, from, bytes);
}

void PacedTransport::deliver(int to) {
  std::unique_lock lock(mutex_);
  Peer& peer = peers_[to];
  while (!peer.waiting.empty()) {
    const Put& put = peer.waiting.front();  // stays where it is while others are added
    if (const Time now = steady_now(); put.due > now && !ending_) {
      delayer_->after(put.due - now, [this, to] { deliver(to); });
      return;
    }
    lock.unlock();  // it may be long, and the worker posts to others
    const Status status =
        put_now(put.to, put.offset, put.payload.data(), put.payload.size(), put.signal);
    lock.lock();
    if (!status) peer.failure = status;
    peer.waiting.pop_front();
  }
  if (!std::exchange(peer.awaited, false)) return;
  lock.unlock();
  wake_();
}

bool PacedTransport::drained(int peer) {
  const std::lock_guard lock(mutex_);
  Peer& state = peers_[peer];
  state.awaited = !state.waiting.empty();
  return !state.awaited && inner_->drained(peer);
}

}  // namespace slip
