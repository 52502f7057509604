#include "slipstream/transport/network_engine_internal.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>

namespace slip {
namespace {

using namespace std::chrono_literals;

constexpr Duration beat_interval = 1s;

}  // namespace

std::uint64_t draw_life() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

NetworkEngine::NetworkEngine(std::shared_ptr<Doorbell> doorbell, Duration peer_timeout)
    : doorbell_(std::move(doorbell)), peer_timeout_(peer_timeout), last_beat_(steady_now()) {
  if (doorbell_) return;
  doorbell_ = std::make_shared<Doorbell>();
  doorbell_->writers_fence = !asymmetric_fences();
}

void NetworkEngine::on_lost(std::function<void(const Status&)> lost) {
  const std::lock_guard lock(mutex_);
  lost_ = std::move(lost);
}

void NetworkEngine::ring(Bell bell) {
  if (bell == Bell::progress) return parking_.nudge();
  if (must_wake(*doorbell_, Bell::worker)) wake_worker(*doorbell_);
}

void NetworkEngine::wake(Bell bell) {
  if (bell == Bell::progress) return parking_.ring();
  if (must_wake(*doorbell_, Bell::worker)) wake_worker(*doorbell_);
}

void NetworkEngine::announce_by(std::shared_ptr<Announcer> announcer) {
  const std::lock_guard lock(mutex_);
  announcer_ = std::move(announcer);
}

bool NetworkEngine::land(const SharedMemory& region, const Arrival& arrival) {
  const auto inside = [&](std::uint64_t offset, std::uint64_t count) {
    return offset <= region.bytes && count <= region.bytes - offset;
  };
  if (arrival.bytes > 0) {
    if (!inside(arrival.offset, arrival.bytes)) return false;
    if (region.landing) {
      region.landing->place(arrival.offset, arrival.payload, arrival.bytes);
    } else {
      std::memcpy(region.memory.get() + arrival.offset, arrival.payload, arrival.bytes);
    }
  }
  if (!arrival.has_word) return true;
  if (!inside(arrival.word_offset, sizeof(Word)) || arrival.word_offset % sizeof(Word) != 0) {
    return false;
  }
  if (region.landing) {
    region.landing->announce(arrival.word_offset, arrival.word);
    return true;
  }
  auto* const at = reinterpret_cast<Word*>(region.memory.get() + arrival.word_offset);
  if (announcer_) {
    announcer_->announce(region.memory, at, arrival.word, region.bell);
    return true;
  }
  // Pairs with Region::word. What was put before is there: its completion, or its message, was
  // seen.
  std::atomic_ref<Word>(*at).store(arrival.word, std::memory_order_release);
  ring(region.bell);
  return true;
}

bool NetworkEngine::has_to_wait(const Question& question) {
  if (!announcer_) return false;
  Waiting& waiting = waiting_questions_.emplace_back(Waiting{question});
  after_words(waiting.is_settled);
  return true;
}

void NetworkEngine::after_words(Word& done) {
  if (announcer_) return announcer_->announce(nullptr, &done, 1, Bell::progress);
  done = 1;
}

std::optional<Question> NetworkEngine::next_settled() {
  if (waiting_questions_.empty()) return {};
  Waiting& first = waiting_questions_.front();
  if (std::atomic_ref<Word>(first.is_settled).load(std::memory_order_acquire) == 0) return {};
  const Question question = first.question;
  waiting_questions_.pop_front();
  return question;
}

void NetworkEngine::add_loss(const Status& why) {
  losses_.push_back(why);
  parking_.nudge();
}

void NetworkEngine::free_memory() {
  std::vector<SharedMemory> freed;
  const std::lock_guard lock(mutex_);
  freed.swap(freed_);
}

void NetworkEngine::tell_losses() {
  std::vector<Status> losses;
  std::function<void(const Status&)> lost;
  {
    const std::lock_guard lock(mutex_);
    if (losses_.empty()) return;
    losses = std::exchange(losses_, {});
    lost = lost_;
  }
  ring(Bell::worker);
  for (const Status& loss : losses) {
    if (lost) lost(loss);
  }
}

NetworkEngine::Beat NetworkEngine::beat() {
  const Time now = steady_now();
  const Duration since = now - last_beat_;
  if (since < beat_interval) return {};
  last_beat_ = now;
  return {true, since > peer_timeout_ / 2 + beat_interval, now};
}

}  // namespace slip
