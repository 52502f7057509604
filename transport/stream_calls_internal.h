#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "slipstream/base/error.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/transport/doorbell.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// Calls that follow what is enqueued on a stream, each with its own arguments: places for `Call`s,
/// which are taken in turn. A call is run by a thread of the driver and must not call CUDA. What it
/// holds is kept until its place is taken again, or all places go.
template <class Call>
class StreamCalls {
 public:
  explicit StreamCalls(std::size_t places) : places_(places) {}

  struct Place {
    std::atomic<bool> taken{false};
    Call call;
  };

  /// The next place; waits for the stream where it is taken still. Null: the stream has failed.
  Place* take(const gpu::Stream& stream) {
    Place& place = places_[next_.fetch_add(1, std::memory_order_relaxed) % places_.size()];
    // Pairs with the release in `run`: what is there is not used any more.
    while (place.taken.exchange(true, std::memory_order_acquire)) {
      if (!stream.synchronize()) return nullptr;
    }
    return &place;
  }
  /// A place, of which there are as many more as it takes: for one thread at a time, that must not
  /// wait.
  Place* take_or_add() {
    Place* place = &places_[next_.fetch_add(1, std::memory_order_relaxed) % places_.size()];
    if (!place->taken.exchange(true, std::memory_order_acquire)) return place;
    place = &places_.emplace_back();
    place->taken.store(true, std::memory_order_relaxed);
    return place;
  }

  /// Of a place that was taken and filled.
  Status enqueue(Place* place, const gpu::Stream& stream) {
    Status status = stream.then(&run, place);
    if (!status) give_back(place);
    return status;
  }
  /// Of a place that was taken: there will be no call.
  void give_back(Place* place) { place->taken.store(false, std::memory_order_release); }

 private:
  static void run(void* argument) {
    auto& place = *static_cast<Place*>(argument);
    place.call();
    place.taken.store(false, std::memory_order_release);
  }

  std::deque<Place> places_;  // which stay where they are
  std::atomic<std::size_t> next_{0};
};

/// For Transport::drained: whether the puts that a worker has enqueued have been done.
class StreamMark {
 public:
  explicit StreamMark(std::shared_ptr<Doorbell> own) : own_(std::move(own)) {}

  /// One more put; from any thread.
  void count() { puts_.fetch_add(1, std::memory_order_relaxed); }

  /// Rings the worker's own bell when it turns true.
  bool passed(const gpu::Stream& stream) {
    if (!reached_.load(std::memory_order_acquire)) return false;
    const std::uint64_t puts = puts_.load(std::memory_order_relaxed);
    if (marked_ == puts) return true;
    marked_ = puts;
    reached_.store(false, std::memory_order_relaxed);
    if (stream.then(&reach, this)) return false;
    // Nothing more takes effect; the stream's status says why.
    reached_.store(true, std::memory_order_relaxed);
    return true;
  }

 private:
  static void reach(void* argument) {
    auto& self = *static_cast<StreamMark*>(argument);
    Doorbell& own = *self.own_;
    self.reached_.store(true, std::memory_order_release);
    wake_worker(own);
  }

  const std::shared_ptr<Doorbell> own_;
  std::atomic<std::uint64_t> puts_{0};
  std::uint64_t marked_ = 0;         // puts before the last mark
  std::atomic<bool> reached_{true};  // by the stream: that mark. Release, acquire in `passed`
};

}  // namespace slip

#pragma GCC visibility pop
