#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "slipstream/transport/ucx/engine_internal.h"

namespace slip::ucx {
namespace {

using namespace std::chrono_literals;

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
  const auto found = peers_.find(message.life);
  Peer* const peer = found == peers_.end() ? nullptr : &found->second;
  if (peer != nullptr && !peer->failure) return;  // of a life that is over
  if (peer != nullptr) peer->heard = steady_now();
  switch (message.kind) {
    case Kind::beat:
      return;
    case Kind::nudge:
      return ring(Bell::progress);
    case Kind::write:
    case Kind::signal:
      if (peer != nullptr && !land(message, data, bytes)) lose(*peer, "it sent a damaged message");
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
      ring(Bell::progress);
      return;
    default:
      questions_.emplace_back(message, std::string(reinterpret_cast<const char*>(data), bytes));
  }
}

/// What cannot be answered within UCX's callbacks, and what is behind that.
void Engine::answer(const Message& message, const std::string& payload) {
  if (message.kind == Kind::hello) {
    try {
      connect(message.rank, message.life, payload);
    } catch (const Error&) {
      // It waits for an answer, and will name this worker.
    }
    return;
  }
  const auto found = peers_.find(message.life);
  if (found == peers_.end() || !found->second.failure) return;
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
      if (!has_to_wait({message.life, message.number})) reply_to_drain(peer, message.number);
      return;
    default:
      return lose(peer, "it sent a damaged message");
  }
}

void Engine::reply_to_drain(Peer& peer, std::uint64_t number) {
  Message reply{};
  reply.kind = Kind::drained;
  reply.number = number;
  (void)send(peer, reply, nullptr, 0);
}

/// False if it is not what a put to this worker may be.
bool Engine::land(const Message& message, const std::byte* payload, std::size_t bytes) {
  const auto found = regions_.find(message.region);
  if (found == regions_.end()) return true;  // freed since
  const bool has_word = message.kind == Kind::signal;
  return NetworkEngine::land(
      found->second, {message.offset, payload, bytes, has_word, message.word_offset, message.word});
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
  add_loss(peer.failure);
}

void Engine::disconnect(int rank) {
  const std::lock_guard lock(mutex_);
  Peer* const peer = current(rank);
  if (peer == nullptr || !peer->failure) return;
  peer->failure = {Code::peer_lost,
                   fmt::format("rank {} has given rank {} up", options_.rank, rank), rank};
}

/// Says that this worker lives, and looks who has not said so for too long.
void Engine::tell_beat() {
  const Beat beat = this->beat();
  if (!beat.is_due) return;
  for (auto& [life, peer] : peers_) {
    if (!peer.failure) continue;
    if (beat.was_stopped) peer.heard = beat.now;
    if (is_silent(peer.heard, beat.now)) {
      lose(peer, fmt::format("silent for {:.3g} s", to_seconds(beat.now - peer.heard)));
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
  if (has_losses()) return parking_.ring();
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
  }
  attend();
  free_memory();
}

void Engine::attend() {
  {
    const std::lock_guard lock(mutex_);
    progress_all();
    tell_beat();
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
    if (!has_losses()) return;
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
  while (const auto question = next_settled()) {
    Peer& peer = peers_.at(question->life);
    if (peer.failure) reply_to_drain(peer, question->number);
  }
  if (has_unused_regions_ && free_sendings_.size() == sendings_.size()) release_all();
}

// ---- The end.

void Engine::close() {
  on_lost(nullptr);
  const std::lock_guard lock(mutex_);
  std::vector<ucs_status_ptr_t> closing;
  for (auto& [life, peer] : peers_) {
    peer.doorbell.reset();  // before its endpoint
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
