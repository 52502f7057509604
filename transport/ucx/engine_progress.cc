#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "slipstream/transport/ucx/engine_internal.h"

namespace slip::ucx {
namespace {

using namespace std::chrono_literals;

constexpr Duration beat_interval = 1s;
constexpr Duration close_timeout = 1s;

}  // namespace

// ---- What arrives.

/// A message comes as a header of its own, or in front of its payload.
ucs_status_t Engine::on_message(void* engine, const void* header, std::size_t header_bytes,
                                void* data, std::size_t bytes, const ucp_am_recv_param_t*) {
  const auto* payload = static_cast<const std::byte*>(data);
  Message message{};
  if (header_bytes == sizeof message) {
    std::memcpy(&message, header, sizeof message);
  } else if (header_bytes == 0 && bytes >= sizeof message) {
    std::memcpy(&message, payload, sizeof message);
    payload += sizeof message;
    bytes -= sizeof message;
  } else {
    return UCS_OK;  // nobody of ours sends such
  }
  static_cast<Engine*>(engine)->handle(message, payload, bytes);
  return UCS_OK;
}

void Engine::handle(const Message& message, const std::byte* data, std::size_t bytes) {
  const auto found = peers_.find(message.rank);
  Peer* const peer = found == peers_.end() ? nullptr : &found->second;
  if (peer != nullptr) peer->heard = steady_now();
  switch (message.kind) {
    case Kind::beat:
      return;
    case Kind::write:
    case Kind::signal:
      if (!land(message, data, bytes) && peer != nullptr) lose(*peer, "it sent a damaged message");
      return;
    case Kind::attached:
      if (const auto asked = attaching_.find(message.number); asked != attaching_.end()) {
        asked->second = message.word != 0;
      }
      return;
    case Kind::drained:
      if (peer == nullptr || message.number > peer->asked) return;
      peer->drained = message.number;
      ring(Bell::worker);
      return;
    default:
      questions_.emplace_back(message, std::string(reinterpret_cast<const char*>(data), bytes));
  }
}

/// What cannot be answered within UCX's callbacks, and what is behind that.
void Engine::answer(const Message& message, const std::string& payload) {
  if (message.kind == Kind::hello) {
    try {
      connect(message.rank, payload);
    } catch (const Error&) {
      // It waits for an answer, and will name this worker.
    }
    return;
  }
  const auto found = peers_.find(message.rank);
  if (found == peers_.end()) return;
  Peer& peer = found->second;
  const auto region = regions_.find(message.region);
  Message reply = message;
  switch (message.kind) {
    case Kind::attach:
      reply.kind = Kind::attached;
      reply.word = region != regions_.end() && !region->second.freed ? 1 : 0;
      if (reply.word != 0) ++region->second.attached;
      (void)send(peer, reply, nullptr, 0);
      return;
    case Kind::detach:
      if (region == regions_.end() || region->second.attached == 0) return;
      --region->second.attached;
      return release(message.region);
    case Kind::drain:
      reply.kind = Kind::drained;
      (void)send(peer, reply, nullptr, 0);
      return;
    default:
      return lose(peer, "it sent a damaged message");
  }
}

/// False if it is not what a put to this worker may be.
bool Engine::land(const Message& message, const std::byte* payload, std::size_t bytes) {
  const auto found = regions_.find(message.region);
  if (found == regions_.end()) return true;  // freed since
  const LocalRegion& region = found->second;
  const auto inside = [&](std::uint64_t offset, std::uint64_t count) {
    return offset <= region.bytes && count <= region.bytes - offset;
  };
  if (bytes > 0) {
    if (!inside(message.offset, bytes)) return false;
    if (region.landing) {
      region.landing->place(message.offset, payload, bytes);
    } else {
      std::memcpy(region.memory.get() + message.offset, payload, bytes);
    }
  }
  if (message.kind == Kind::write) return true;
  if (!inside(message.word_offset, sizeof(Word)) || message.word_offset % sizeof(Word) != 0) {
    return false;
  }
  if (region.landing) {
    region.landing->announce(message.word_offset, message.word);
    return true;
  }
  auto* const at = reinterpret_cast<Word*>(region.memory.get() + message.word_offset);
  if (announcer_) {
    announcer_->announce(region.memory, at, message.word, region.bell);
    return true;
  }
  // Pairs with Region::word.
  std::atomic_ref<Word>(*at).store(message.word, std::memory_order_release);
  ring(region.bell);
  return true;
}

/// From any thread, without the lock.
void Engine::wake(Bell bell) {
  if (bell == Bell::progress) return parking_.ring();
  if (must_wake(*options_.doorbell, Bell::worker)) wake_worker(*options_.doorbell);
}

/// Services need no bell on the thread that runs them, which looks at them before it sleeps.
void Engine::ring(Bell bell) {
  if (bell == Bell::progress) return parking_.nudge();
  if (must_wake(*options_.doorbell, Bell::worker)) wake_worker(*options_.doorbell);
}

// ---- Losses.

void Engine::on_broken(void* arg, ucp_ep_h, ucs_status_t status) {
  auto& peer = *static_cast<Peer*>(arg);
  peer.engine->lose(peer, text(status));
}

void Engine::lose(Peer& peer, const std::string& why) {
  if (!peer.failure) return;
  peer.failure = {Code::peer_lost,
                  fmt::format("rank {}: lost rank {} (UCX: {})", options_.rank, peer.rank, why),
                  peer.rank};
  losses_.push_back(&peer);
  parking_.nudge();
}

/// With the lock not held: whoever is told may put.
void Engine::tell_losses() {
  std::vector<Peer*> losses;
  std::function<void(const Status&)> lost;
  {
    const std::lock_guard lock(mutex_);
    if (losses_.empty()) return;
    losses = std::exchange(losses_, {});
    lost = lost_;
  }
  ring(Bell::worker);
  for (const Peer* peer : losses) {
    if (lost) lost(peer->failure);
  }
}

void Engine::announce_by(std::shared_ptr<Announcer> announcer) {
  const std::lock_guard lock(mutex_);
  announcer_ = std::move(announcer);
}

void Engine::on_lost(std::function<void(const Status&)> lost) {
  const std::lock_guard lock(mutex_);
  lost_ = std::move(lost);
}

/// Says that this worker lives, and looks who has not said so for too long.
void Engine::beat() {
  const Time now = steady_now();
  const Duration since = now - last_beat_;
  if (since < beat_interval) return;
  last_beat_ = now;
  const bool was_stopped = since > options_.peer_timeout / 2 + beat_interval;
  for (auto& [rank, peer] : peers_) {
    if (!peer.failure) continue;
    if (was_stopped) peer.heard = now;  // the silence was ours
    if (now - peer.heard > options_.peer_timeout) {
      lose(peer, fmt::format("silent for {:.3g} s", to_seconds(now - peer.heard)));
      continue;
    }
    Message message{};
    message.kind = Kind::beat;
    (void)send(peer, message, nullptr, 0);
  }
}

// ---- Driving.

void Engine::arm() {
  const std::lock_guard lock(mutex_);
  if (!losses_.empty()) return parking_.ring();
  if (!parking_.lie_down()) return;
  for (int i = 0; i < 64; ++i) {
    const ucs_status_t status = library().ucp_worker_arm(worker_);
    if (status == UCS_OK) return parking_.rearm(event_fd_);
    progress_all();  // UCS_ERR_BUSY: more has come
  }
  parking_.ring();
}

void Engine::progress() {
  {
    const std::lock_guard lock(mutex_);
    parking_.get_up();
    progress_all();
    beat();
  }
  tell_losses();
}

void Engine::drive() {
  {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return;  // somebody does
    parking_.drove();
    library().ucp_worker_progress(worker_);  // and back to the condition, which may hold now
    settle();
    if (losses_.empty()) return;
  }
  tell_losses();
}

void Engine::rest() {
  const std::lock_guard lock(mutex_);
  parking_.rest();
}

void Engine::progress_all() {
  while (library().ucp_worker_progress(worker_) != 0) {
  }
  settle();
}

/// What had to wait for the end of UCX's callbacks.
void Engine::settle() {
  for (const auto& [message, payload] : std::exchange(questions_, {})) answer(message, payload);
  if (has_unused_regions_ && free_sendings_.size() == sendings_.size()) release_all();
}

// ---- The end.

void Engine::close() {
  const std::lock_guard lock(mutex_);
  lost_ = nullptr;
  std::vector<ucs_status_ptr_t> closing;
  for (auto& [rank, peer] : peers_) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = peer.notices_failure ? UCP_EP_CLOSE_FLAG_FORCE : 0;
    const ucs_status_ptr_t request = library().ucp_ep_close_nbx(peer.endpoint, &param);
    if (UCS_PTR_IS_PTR(request)) closing.push_back(request);
    peer.failure = {Code::stopped, fmt::format("rank {} has left", options_.rank), peer.rank};
  }
  const Time deadline = steady_now() + close_timeout;
  while (!closing.empty()) {
    library().ucp_worker_progress(worker_);
    std::erase_if(closing, [&](ucs_status_ptr_t request) {
      const bool over =
          steady_now() >= deadline || library().ucp_request_check_status(request) != UCS_INPROGRESS;
      if (over) library().ucp_request_free(request);
      return over;
    });
  }
}

}  // namespace slip::ucx
