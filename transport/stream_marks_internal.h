#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "slipstream/gpu/failures_internal.h"
#include "slipstream/gpu/stream.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// For Transport::drained: whether what a worker has put on a stream has been done. Thread-safe.
class StreamMarks {
 public:
  /// `wake` wakes whoever waits, on a thread of the driver.
  explicit StreamMarks(std::function<void()> wake) : wake_(std::move(wake)) {}

  /// A put that is being enqueued. It counts when all of it is: a mark of another thread may come
  /// between, which says nothing of it.
  class Put {
   public:
    Put(StreamMarks& marks, const gpu::Stream& stream) : marks_(marks), stream_(stream) {}
    ~Put() {
      const std::lock_guard lock(marks_.mutex_);
      ++marks_.mark_of(stream_).puts;
    }
    Put(const Put&) = delete;
    Put& operator=(const Put&) = delete;

   private:
    StreamMarks& marks_;
    const gpu::Stream& stream_;
  };

  /// Wakes when it turns true.
  bool passed(const gpu::Stream& stream) {
    const std::lock_guard lock(mutex_);
    Mark& mark = mark_of(stream);
    if (!mark.reached.load(std::memory_order_acquire)) return false;
    if (mark.marked == mark.puts) return true;
    mark.marked = mark.puts;
    mark.reached.store(false, std::memory_order_relaxed);
    const Status status = stream.then(&reach, &mark);
    if (status) return false;
    gpu::note(status, stream.device());  // nothing more takes effect
    mark.reached.store(true, std::memory_order_relaxed);
    return true;
  }

 private:
  struct Mark {
    explicit Mark(const StreamMarks* of) : owner(of) {}

    const StreamMarks* const owner;  // `reach` reads it on another thread
    std::uint64_t puts = 0;
    std::uint64_t marked = 0;         // puts before the last mark
    std::atomic<bool> reached{true};  // that mark. Release in `reach`, acquire in `passed`
  };

  Mark& mark_of(const gpu::Stream& stream) {
    return marks_.try_emplace(stream.handle(), this).first->second;
  }
  /// A call on a stream: must not take the lock, under which others are enqueued.
  static void reach(void* argument) {
    auto& mark = *static_cast<Mark*>(argument);
    mark.reached.store(true, std::memory_order_release);
    mark.owner->wake_();
  }

  const std::function<void()> wake_;
  std::mutex mutex_;
  std::map<void*, Mark> marks_;  // by stream
};

}  // namespace slip

#pragma GCC visibility pop
