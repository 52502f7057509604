#include "slipstream/transport/fault_proxy.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/transport/held_payload_internal.h"

namespace slip {
/// Outlives the proxy while delayed actions refer to it.
struct __attribute__((visibility("hidden"))) FaultProxy::State {
  struct Put {
    RemoteRegion to;  // the inner transport's
    std::size_t offset;
    HeldPayload payload;
    std::optional<Signal> signal;
  };
  struct Peer {
    std::uint64_t puts = 0;
    Time held_until{0};  // where anything waits: when the last action that is under way releases it
    std::deque<Put> waiting;
  };

  std::optional<gpu::Stream> stream;  // of all puts, once there is memory of a GPU
  std::unique_ptr<Transport> inner;
  FaultPlan plan;
  std::function<void()> wake;
  Random random{0};
  std::mutex mutex;  // guards all below
  std::map<int, Peer> peers;
  std::map<const std::byte*, RemoteRegion> regions;  // the inner transport's, by memory

  /// Whoever puts, it is the same stream, and so in order.
  std::optional<gpu::CurrentStream> enter_stream() const {
    return stream ? std::optional<gpu::CurrentStream>(std::in_place, *stream) : std::nullopt;
  }

  /// Whose memory holds a payload back: the GPU's, too, for what it reads in pinned memory.
  int holder(const RemoteRegion& to, const void* from, std::size_t bytes) const {
    if (to.device == gpu::host || bytes == 0) return gpu::host;
    return stream && gpu::reaches(stream->device(), from) ? stream->device() : gpu::device_of(from);
  }

  Status now(const Put& put) {
    const auto here = enter_stream();
    const void* from = put.payload.data();
    return put.signal ? inner->put_signal(put.to, put.offset, from, put.payload.bytes(),
                                          put.signal->offset, put.signal->word)
                      : inner->put(put.to, put.offset, from, put.payload.bytes());
  }

  /// What waits for `peer`, unless it is to be held for longer than `until`.
  void release(int peer, Time until) {
    const std::lock_guard lock(mutex);
    Peer& state = peers[peer];
    if (until < state.held_until) return;
    for (const Put& put : std::exchange(state.waiting, {})) {
      (void)now(put);  // bounds were checked when it was posted
    }
    wake();
  }
};

FaultProxy::FaultProxy(std::unique_ptr<Transport> inner, const FaultPlan& plan, int rank,
                       std::unique_ptr<Delayer> delayer, std::function<void()> wake)
    : rank_(rank), state_(std::make_shared<State>()), delayer_(std::move(delayer)) {
  state_->inner = std::move(inner);
  state_->plan = plan;
  state_->wake = std::move(wake);
  state_->random = Random(key({plan.seed, static_cast<std::uint64_t>(rank)}));
}

FaultProxy::~FaultProxy() {
  delayer_.reset();  // a thread runs what is left; virtual time may never come to it
  std::vector<int> held;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [peer, state] : state_->peers) held.push_back(peer);
  }
  for (const int peer : held) state_->release(peer, never);
}

std::string_view FaultProxy::name() const { return state_->inner->name(); }

Region FaultProxy::allocate(std::size_t bytes, Bell bell, int device) {
  Region region = state_->inner->allocate(bytes, bell, device);
  const std::lock_guard lock(state_->mutex);
  if (device != gpu::host && !state_->stream) state_->stream.emplace(device);
  return region;
}

RemoteRegion FaultProxy::attach(int peer, std::string_view key) {
  RemoteRegion region = state_->inner->attach(peer, key);
  const std::lock_guard lock(state_->mutex);
  state_->regions[region.memory.get()] = region;
  region.wakeup.reset();
  return region;
}

Status FaultProxy::put(const RemoteRegion& to, std::size_t offset, const void* from,
                       std::size_t bytes) {
  return post(to, offset, from, bytes, std::nullopt);
}

Status FaultProxy::put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                              std::size_t bytes, std::size_t word_offset, Word word) {
  if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) {
    return out_of_bounds(to, word_offset, sizeof word);
  }
  return post(to, offset, from, bytes, Signal{word_offset, word});
}

Status FaultProxy::post(const RemoteRegion& to, std::size_t offset, const void* from,
                        std::size_t bytes, std::optional<Signal> signal) {
  if (!to.contains(offset, bytes)) return out_of_bounds(to, offset, bytes);
  const FaultPlan& plan = state_->plan;
  const std::lock_guard lock(state_->mutex);
  State::Peer& peer = state_->peers[to.peer];
  if (to.peer == plan.cut_peer && ++peer.puts > plan.cut_after) {
    return {Code::peer_lost, fmt::format("the path to rank {} is cut", to.peer), to.peer};
  }
  if (state_->stream) {
    // What is put follows what the caller has enqueued.
    const gpu::Stream callers = gpu::current_stream(state_->stream->device());
    if (Status s = callers.synchronize(); !s) return s;
  }
  State::Put put{state_->regions.at(to.memory.get()), offset,
                 HeldPayload(state_->holder(to, from, bytes), from, bytes), signal};
  if (bytes > 0 && state_->random.uniform() < plan.corrupt_probability) {
    put.payload.damage(state_->random.below(bytes));
  }
  const bool first = peer.waiting.empty();
  const bool delayed = first && state_->random.uniform() < plan.delay_probability;
  const Time now = delayer_->now();
  Time due = now + partitioned_for(to.peer, now);
  if (delayed) {
    due = std::max(due, now + from_seconds(state_->random.uniform(0, to_seconds(plan.max_delay))));
  }
  if (first && !delayed && due == now) return state_->now(put);
  peer.waiting.push_back(std::move(put));
  if (first || due > peer.held_until) {
    peer.held_until = due;
    delayer_->after(due - now, [state = state_, to = to.peer, due] { state->release(to, due); });
  }
  return {};
}

/// How long a put has to wait for the end of a partition.
Duration FaultProxy::partitioned_for(int peer, Time now) const {
  const auto on_island = [](const Partition& partition, int rank) {
    return std::ranges::find(partition.island, rank) != partition.island.end();
  };
  Duration longest{0};
  for (const Partition& partition : state_->plan.partitions) {
    if (on_island(partition, rank_) == on_island(partition, peer)) continue;
    if (now >= partition.begin) longest = std::max(longest, partition.end - now);
  }
  return longest;
}

bool FaultProxy::drained(int peer) {
  const std::lock_guard lock(state_->mutex);
  const auto here = state_->enter_stream();
  return state_->peers[peer].waiting.empty() && state_->inner->drained(peer);
}

int FaultProxy::progress_fd() const { return state_->inner->progress_fd(); }
void FaultProxy::arm() { state_->inner->arm(); }
void FaultProxy::progress() { state_->inner->progress(); }

}  // namespace slip
