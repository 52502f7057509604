#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/base/time.h"
#include "slipstream/runtime/clock.h"
#include "slipstream/transport/doorbell.h"
#include "slipstream/transport/transport.h"

namespace slip {

/// Ends every wait of a worker. The first reason wins. Thread-safe.
class AbortToken {
 public:
  void abort(Status reason);
  /// Runs `action` upon the abort, on whoever's thread that is; now, where it was before.
  void on_abort(std::function<void()> action);
  /// Acquire, pairs with the release in `abort`: the reason is complete.
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  Status reason() const;

 private:
  std::atomic<bool> aborted_{false};
  mutable std::mutex mutex_;
  Status reason_;
  std::vector<std::function<void()>> actions_;
};

/// How one worker blocks: the only way there is. A condition reads the worker's own memory and its
/// clock, is cheap, and has no side effects; it may be evaluated on another stack.
class Waiter {
 public:
  virtual ~Waiter() = default;

  /// Looks at the condition for a fraction of a microsecond without reading the clock, which would
  /// cost a good part of what a message takes. True if it holds; no use in virtual time.
  virtual bool glance(FunctionRef<bool()>) { return false; }

  /// Returns ok once `condition` holds, Code::timeout after `deadline`, or why it was aborted.
  virtual Status wait(FunctionRef<bool()> condition, Time deadline) = 0;

  /// Sleeps through writes; only an abort ends it early.
  virtual Status sleep_until(Time time) = 0;

  /// Runs `work` and returns when `duration` has passed too; in virtual time exactly then. An abort
  /// cuts the time short, and not the work, and so does `until`, unless null: a condition as of
  /// `wait`. Throws what `work` throws.
  virtual void compute(FunctionRef<void()> work, Duration duration,
                       FunctionRef<bool()>* until = nullptr) = 0;

  /// Makes the worker look at its condition again. From any thread.
  virtual void wake() = 0;
};

/// Waits in real time: spins for a while that adapts to how long waits last, then parks on the
/// doorbell. A lost wake-up would be a bug; `longest_sleep` bounds what it could cost.
class RealWaiter final : public Waiter {
 public:
  /// `driven`, if not null, is what a worker drives while it spins; it outlives every wait.
  RealWaiter(std::shared_ptr<Doorbell> doorbell, std::shared_ptr<const Clock> clock,
             std::shared_ptr<const AbortToken> abort, Duration max_spin,
             Transport* driven = nullptr, Duration longest_sleep = std::chrono::seconds(1));

  bool glance(FunctionRef<bool()> condition) override;
  Status wait(FunctionRef<bool()> condition, Time deadline) override;
  Status sleep_until(Time time) override;
  void compute(FunctionRef<void()> work, Duration duration,
               FunctionRef<bool()>* until = nullptr) override;
  void wake() override { wake_worker(*doorbell_); }

 private:
  bool spin(FunctionRef<bool()> condition);

  const std::shared_ptr<Doorbell> doorbell_;
  const std::shared_ptr<const Clock> clock_;
  const std::shared_ptr<const AbortToken> abort_;
  const Duration max_spin_;
  Transport* const driven_;
  const Duration longest_sleep_;
  Duration spin_;
  // For how many looks at a condition `glance` lasts.
  static constexpr int least_looks = 8;
  static constexpr int most_looks = 256;
  int looks_ = most_looks;
};

}  // namespace slip
