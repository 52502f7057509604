#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/gpu/side_stream.h"
#include "slipstream/runtime/fiber_internal.h"
#include "slipstream/runtime/progress.h"
#include "slipstream/runtime/world.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// Work of a worker's that goes on while it computes, one piece at a time: on the progress thread,
/// as a fiber that gives way where it waits. All but `wait` is for the worker's thread.
class Background {
 public:
  /// With work on memory of `device` on a stream of its own.
  explicit Background(const World& world, int device = gpu::host);
  /// Work under way is cancelled.
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  /// What was begun before has ended. On a GPU it follows what this thread has enqueued.
  Status begin(std::function<Status()> work);
  /// A condition to wait for.
  bool ended() const { return !working_.load(std::memory_order_acquire); }
  /// What came of it. On a GPU what this thread enqueues from now on follows it.
  Status result();

  /// Ends every wait of the work with `why`, and returns what it makes of that. For good.
  Status cancel(const Status& why);

  /// How the work waits for words in Bell::progress regions.
  Status wait(FunctionRef<bool()> condition);

 private:
  void work_on_request();
  bool poll();

  const World& world_;
  /// Release when begun and when ended, acquire by the other side: what follows, and all that the
  /// work reads and writes, is the progress thread's in between.
  std::atomic<bool> working_{false};
  std::function<Status()> work_;
  Status result_;
  FunctionRef<bool()>* awaited_ = nullptr;  // by the work
  Status cancelled_;                        // ok: it is not
  gpu::SideStream side_;
  Fiber fiber_;
  std::unique_ptr<Progress::Handle> serving_;
};

}  // namespace slip

#pragma GCC visibility pop
