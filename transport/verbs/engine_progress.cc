#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "slipstream/transport/verbs/engine_internal.h"

namespace slip::verbs {
namespace {

using namespace std::chrono_literals;

constexpr Duration close_timeout = 1s;
constexpr int batch = 16;

std::string reason(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_RETRY_EXC_ERR:
      return "its device does not answer: the network is cut, or its process has ended";
    case IBV_WC_REM_ACCESS_ERR:
      return "it refused access to its memory";
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
      return "it has closed the connection";
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return "it was not ready to receive";
    default:
      return library().ibv_wc_status_str(status);
  }
}

}  // namespace

// ---- What arrives.

/// How many completions there were.
int Engine::poll() {
  ibv_wc completions[batch];
  const int count = ibv_poll_cq(completions_.get(), batch, completions);
  if (count <= 0) return 0;
  Peer* peers[batch];
  int receives = 0;
  for (int i = 0; i < count; ++i) {
    receives += is_shared_receive(completions[i]);
    peers[i] = take(completions[i]);
  }
  // Receives are posted again before there is credit for what came with them.
  if (receives > 0) {
    ibv_recv_wr& last = receive_works_[receives - 1];
    ibv_recv_wr* const next = std::exchange(last.next, nullptr);
    ibv_recv_wr* bad = nullptr;
    (void)ibv_post_srq_recv(receives_.get(), receive_works_, &bad);
    last.next = next;
  }
  for (int i = 0; i < count; ++i) {
    if (peers[i] != nullptr && peers[i]->failure && peers[i]->channel->is_waiting()) {
      (void)pump(*peers[i]);
    }
  }
  return count;
}

bool Engine::is_shared_receive(const ibv_wc& completion) const {
  return completion.qp_num != connector_->number() && completion.wr_id == 0;
}

/// Whose it is; null: nobody's who is still there.
Engine::Peer* Engine::take(const ibv_wc& completion) {
  if (completion.qp_num == connector_->number()) {
    if (auto knock = connector_->take(completion)) knocks_.push_back(*knock);
    return nullptr;
  }
  const auto found = by_pair_.find(completion.qp_num);
  if (found == by_pair_.end()) return nullptr;
  Peer* const peer = found->second;
  if (completion.status != IBV_WC_SUCCESS) {
    lose(*peer, reason(completion.status));
  } else if (completion.wr_id != 0) {
    peer->channel->complete(completion.wr_id);
  } else if (completion.opcode != IBV_WC_RECV_RDMA_WITH_IMM ||
             !receive(*peer, ntohl(completion.imm_data))) {
    lose(*peer, "it sent a damaged message");
  }
  return peer;
}

/// False if it is not what a peer may send.
bool Engine::receive(Peer& peer, std::uint32_t immediate) {
  Channel& channel = *peer.channel;
  peer.was_heard = true;
  if (!channel.is_open()) channel.open();
  const std::uint32_t number = number_of(immediate);
  const Notice notice = notice_of(immediate);
  if (!channel.credit(handled_of(immediate))) return false;
  if (notice == Notice::credit) return true;
  if (!channel.received().is_next(number)) return false;
  if (notice != Notice::cell) {
    channel.received().handle(false);
    ring(notice == Notice::landed_worker ? Bell::worker : Bell::progress);
    if (notice == Notice::landed_worker) count_notice(peer);
    return true;
  }
  const std::byte* const cell = channel.next_cell();
  Message message;
  std::memcpy(&message, cell, sizeof message);
  if (message.bytes > small_bytes || !handle(peer, message, cell + sizeof message)) return false;
  // Whoever waits for the others is not kept waiting for more of them.
  channel.received().handle(message.kind != Kind::signal);
  return true;
}

bool Engine::handle(Peer& peer, const Message& message, const std::byte* payload) {
  switch (message.kind) {
    case Kind::signal:
      return land(message, payload);
    case Kind::wrote:
      return note_written(message);
    case Kind::beat:
      return true;
    case Kind::attach:
      reply_to_attach(peer, message);
      return true;
    case Kind::attached:
      if (const auto asked = attaching_.find(message.number); asked != attaching_.end()) {
        asked->second = message.word != 0;
      }
      return true;
    case Kind::detach: {
      const auto mine = peer.attached.find(message.region);
      if (mine == peer.attached.end()) return false;
      if (--mine->second == 0) peer.attached.erase(mine);
      --regions_.at(message.region).attached;
      release(message.region);
      return true;
    }
    case Kind::drain:
      if (!has_to_wait({peer.address.life, message.number})) reply_to_drain(peer, message.number);
      return true;
    case Kind::drained:
      if (message.number > peer.asked) return false;
      peer.drained = message.number;
      ring(Bell::worker);
      ring(Bell::progress);
      return true;
    case Kind::bye:
      peer.has_left = true;
      return true;
    case Kind::awake:
      peer.is_awake = true;
      return true;
    case Kind::asleep: {
      peer.is_awake = false;
      Message reply{};
      reply.kind = Kind::noted;
      (void)add_message(peer, reply, nullptr);
      return true;
    }
    case Kind::noted:
      ring(Bell::worker);
      return true;
  }
  return false;
}

/// A notice makes work for both ends that a worker who looks by itself does not need. Whoever has
/// sent it several while it spun may spare them, until it sleeps.
void Engine::count_notice(Peer& peer) {
  constexpr int several = 16;
  if (std::exchange(peer.landed_since, rests_) != rests_) peer.landed = 0;
  if (!is_spinning_ || ++peer.landed != several) return;
  Message message{};
  message.kind = Kind::awake;
  (void)add_message(peer, message, nullptr);
  spared_.push_back(&peer);
}

void Engine::reply_to_attach(Peer& peer, const Message& message) {
  const auto region = regions_.find(message.region);
  Message reply = message;
  reply.kind = Kind::attached;
  reply.bytes = 0;
  reply.word = region != regions_.end() && !region->second.freed ? 1 : 0;
  if (reply.word != 0) {
    ++region->second.attached;
    ++peer.attached[message.region];
  }
  (void)add_message(peer, reply, nullptr);
}

void Engine::reply_to_drain(Peer& peer, std::uint64_t number) {
  Message reply{};
  reply.kind = Kind::drained;
  reply.number = number;
  (void)add_message(peer, reply, nullptr);
}

/// What the peer's device has not written is written here; then the word.
bool Engine::land(const Message& message, const std::byte* payload) {
  const auto found = regions_.find(message.region);
  if (found == regions_.end() || found->second.freed) return true;
  return NetworkEngine::land(found->second, {message.offset, payload, message.bytes, true,
                                             message.word_offset, message.word});
}

/// What the peer's device has written is there, as this came behind it.
bool Engine::note_written(const Message& message) const {
  const auto found = regions_.find(message.region);
  if (found == regions_.end() || found->second.freed) return true;
  const LocalRegion& region = found->second;
  if (!region.landing || message.offset > region.bytes ||
      message.word > region.bytes - message.offset) {
    return false;
  }
  region.landing->came(message.offset, message.word);
  return true;
}

/// A put of this worker to itself.
void Engine::put_here(Message message, const std::byte* from, std::size_t bytes, bool has_word) {
  const auto found = regions_.find(message.region);
  if (found == regions_.end()) return;
  const LocalRegion& region = found->second;
  if (region.landing) {
    region.landing->place(message.offset, from, bytes);
  } else if (bytes > 0) {
    std::memmove(region.memory.get() + message.offset, from, bytes);
  }
  if (has_word) (void)land(message, nullptr);
}

// ---- Losses.

void Engine::lose(Peer& peer, const std::string& why) {
  if (!peer.failure) return;
  cut(peer,
      {Code::peer_lost,
       fmt::format("rank {}: lost rank {} (verbs: {})", options_.rank, peer.rank, why), peer.rank});
  add_loss(peer.failure);
}

/// Its way in is gone when this returns, and before anything that it could write is used again.
void Engine::cut(Peer& peer, const Status& why) {
  peer.failure = why;
  gone_.insert(peer.address.life);
  by_pair_.erase(peer.channel->number());
  std::erase(waiting_, &peer);
  std::erase(spared_, &peer);
  peer.channel.reset();
  for (const auto& [region, count] : std::exchange(peer.attached, {})) {
    regions_.at(region).attached -= count;
    release(region);
  }
}

void Engine::disconnect(int rank) {
  const std::lock_guard lock(mutex_);
  const auto found = peers_.find(rank);
  if (found == peers_.end() || !found->second->failure) return;
  cut(*found->second,
      {Code::peer_lost, fmt::format("rank {} has given rank {} up", options_.rank, rank), rank});
}

/// Says that this worker lives, and looks who has not said so for too long.
void Engine::tell_beat() {
  const Beat beat = this->beat();
  if (!beat.is_due) return;
  std::vector<std::shared_ptr<Peer>> peers;
  for (const auto& [rank, peer] : peers_) peers.push_back(peer);
  for (const auto& peer : peers) {
    if (!peer->failure || !peer->channel->is_open()) continue;
    if (std::exchange(peer->was_heard, false) || beat.was_stopped) peer->heard = beat.now;
    if (is_silent(peer->heard, beat.now)) {
      lose(*peer, fmt::format("silent for {:.3g} s", to_seconds(beat.now - peer->heard)));
      continue;
    }
    if (!peer->channel->is_waiting()) (void)send(*peer, Kind::beat);  // else more is on its way
  }
}

// ---- Driving.

void Engine::arm() {
  const std::lock_guard lock(mutex_);
  if (has_losses()) return parking_.ring();
  if (!parking_.lie_down()) return;
  for (int i = 0; i < 64; ++i) {
    // Only who waits for room has to know when something has been sent.
    const int solicited_only = waiting_.empty() ? 1 : 0;
    if (ibv_req_notify_cq(completions_.get(), solicited_only) != 0) break;
    if (poll() == 0) return;
    poll_all();  // more has come
  }
  parking_.ring();
}

void Engine::progress() {
  {
    const std::lock_guard lock(mutex_);
    parking_.get_up();
    take_events();
  }
  attend();
  free_memory();
}

void Engine::attend() {
  {
    const std::lock_guard lock(mutex_);
    poll_all();
    tell_beat();
  }
  tell_losses();
}

/// Of the descriptor that ended the sleep.
void Engine::take_events() {
  ibv_cq* queue = nullptr;
  void* context = nullptr;
  unsigned count = 0;
  while (library().ibv_get_cq_event(events_.get(), &queue, &context) == 0) ++count;
  if (count > 0) library().ibv_ack_cq_events(completions_.get(), count);
}

void Engine::drive() {
  {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return;  // somebody does
    parking_.drove();
    is_spinning_ = true;
    if (poll() > 0) settle();  // and back to the condition, which may hold now
    if (!has_losses()) return;
  }
  tell_losses();
}

void Engine::rest() {
  const std::lock_guard lock(mutex_);
  parking_.rest();
  is_spinning_ = false;
  ++rests_;
  for (Peer* peer : std::exchange(spared_, {})) (void)send(*peer, Kind::asleep);
}

void Engine::poll_all() {
  while (poll() > 0) {
  }
  settle();
}

/// What has to wait until all completions of a batch are taken.
void Engine::settle() {
  for (const Knock& knock : std::exchange(knocks_, {})) answer(knock);
  while (const auto question = next_settled()) {
    for (const auto& [rank, peer] : peers_) {
      if (peer->address.life != question->life || !peer->failure) continue;
      reply_to_drain(*peer, question->number);
      (void)pump(*peer);
    }
  }
  std::erase_if(waiting_, [](Peer* peer) {
    if (peer->channel->is_waiting()) return false;
    peer->is_waiting = false;
    return true;
  });
  if (has_unused_regions_) release_all();
}

// ---- The end.

void Engine::close() {
  on_lost(nullptr);
  std::unique_lock lock(mutex_);
  for (const auto& [rank, peer] : peers_) {
    if (peer->failure && peer->channel->is_open()) (void)send(*peer, Kind::bye);
  }
  const Time deadline = steady_now() + close_timeout;
  const auto is_over = [&](const auto& entry) {
    const Peer& peer = *entry.second;
    return !peer.failure || peer.has_left || peer.channel->is_finished();
  };
  while (!std::all_of(peers_.begin(), peers_.end(), is_over) && steady_now() < deadline) {
    if (poll() > 0) continue;
    lock.unlock();
    std::this_thread::sleep_for(20us);
    lock.lock();
  }
  for (const auto& [rank, peer] : peers_) {
    if (!peer->failure) continue;
    cut(*peer, {Code::stopped, fmt::format("rank {} has left", options_.rank), rank});
  }
}

}  // namespace slip::verbs
