#include "slipstream/runtime/wait.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "slipstream/base/processor.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

constexpr Duration min_spin = 1us;
constexpr Duration shortest_turn = 1us;  // of others on this processor

}  // namespace

void AbortToken::abort(Status reason) {
  std::vector<std::function<void()>> actions;
  {
    const std::lock_guard lock(mutex_);
    if (aborted_.load(std::memory_order_relaxed)) return;
    reason_ = std::move(reason);
    aborted_.store(true, std::memory_order_release);
    actions = std::exchange(actions_, {});
  }
  for (const auto& action : actions) action();
}

void AbortToken::on_abort(std::function<void()> action) {
  {
    const std::lock_guard lock(mutex_);
    if (!aborted_.load(std::memory_order_relaxed)) {
      actions_.push_back(std::move(action));
      return;
    }
  }
  action();
}

Status AbortToken::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

RealWaiter::RealWaiter(std::shared_ptr<Doorbell> doorbell, std::shared_ptr<const Clock> clock,
                       std::shared_ptr<const AbortToken> abort, Duration max_spin,
                       Transport* driven, Duration longest_sleep)
    : doorbell_(std::move(doorbell)),
      clock_(std::move(clock)),
      abort_(std::move(abort)),
      max_spin_(max_spin),
      driven_(driven),
      longest_sleep_(longest_sleep),
      spin_(max_spin) {}

bool RealWaiter::glance(FunctionRef<bool()> condition) {
  if (max_spin_ == Duration::zero()) return false;
  // No pause either: it lasts as long as a cache line takes between near processors. Who has looked
  // in vain, as those do who share a processor, looks for half as long the next time; and for
  // longer again where `spin` finds that it nearly waited long enough.
  for (int i = 0; i < looks_; ++i) {
    if (condition()) {
      looks_ = std::min(most_looks, looks_ * 2);
      return true;
    }
    if (driven_ != nullptr) driven_->drive();
  }
  looks_ = std::max(least_looks, looks_ / 2);
  return false;
}

bool RealWaiter::spin(FunctionRef<bool()> condition) {
  if (max_spin_ == Duration::zero()) return condition();
  const Time begin = clock_->now(), end = begin + spin_;
  do {
    // Whoever it waits for may have to run here. If nobody has to, this costs a fraction of a
    // microsecond.
    sched_yield();
    for (int i = 0; i < 8; ++i) {
      if (condition()) {
        spin_ = std::min(max_spin_, spin_ * 2);
        if (clock_->now() - begin < shortest_turn) looks_ = std::min(most_looks, looks_ * 4);
        return true;
      }
      if (driven_ != nullptr) driven_->drive();
      relax();
    }
  } while (clock_->now() < end);
  spin_ = std::max(min_spin, spin_ / 2);
  return false;
}

Status RealWaiter::wait(FunctionRef<bool()> condition, Time deadline) {
  if (spin(condition)) return {};
  if (driven_ != nullptr) driven_->rest();
  for (;;) {
    const std::uint32_t seen = doorbell_->events.load(std::memory_order_acquire);
    announce_sleeper(*doorbell_, Bell::worker);
    const bool holds = condition();
    if (!holds && !abort_->aborted()) {
      const Time now = clock_->now();
      if (now < deadline) sleep_on(*doorbell_, seen, std::min(longest_sleep_, deadline - now));
    }
    withdraw_sleeper(*doorbell_, Bell::worker);
    if (holds || condition()) return {};
    if (abort_->aborted()) return abort_->reason();
    if (clock_->now() >= deadline) return {Code::timeout, "the deadline has passed"};
  }
}

Status RealWaiter::sleep_until(Time time) {
  while (!abort_->aborted()) {
    const std::uint32_t seen = doorbell_->events.load(std::memory_order_acquire);
    const Time now = clock_->now();
    if (now >= time) return {};
    if (abort_->aborted()) break;
    // Not announced: writers pass by, and only `wake` moves the event count.
    sleep_on(*doorbell_, seen, std::min(longest_sleep_, time - now));
  }
  return abort_->reason();
}

void RealWaiter::compute(FunctionRef<void()> work, Duration duration, FunctionRef<bool()>* until) {
  const Time end = clock_->now() + duration;
  work();
  if (duration == Duration::zero()) return;
  // The next wait reports an abort.
  (void)(until != nullptr ? wait(*until, end) : sleep_until(end));
}

}  // namespace slip
