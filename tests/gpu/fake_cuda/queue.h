#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace fake_cuda {

/// A stream: a thread that does what is enqueued, in order. It ends with its handle, once all is
/// done.
class Queue {
 public:
  /// `blocking`: it is in order with the stream that a null handle names.
  explicit Queue(int device, bool blocking = true);
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  int device() const;
  bool blocking() const;
  void enqueue(std::function<void()> work);
  /// Pieces of work so far.
  std::size_t enqueued() const;
  bool idle() const;

  /// The stream that a null handle names.
  static Queue& default_of(int device);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

/// Waits until all streams of a GPU are idle, or one is; those of a lost one are soon.
void drain(int device);
void drain(const Queue& queue);

/// Waits until it is true, or the GPU is lost.
void wait_until(const std::function<bool()>& condition);

/// What an event has marked, and how far that is done.
struct Mark {
  std::uint64_t recorded = 0;
  std::uint64_t done = 0;
  std::chrono::steady_clock::time_point at{};
};

/// An event; copies are the same.
class Marker {
 public:
  Marker();
  void record(Queue& queue) const;
  Mark now() const;
  /// Waits for what is recorded now, or for a mark that was.
  void wait(std::uint64_t recorded) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace fake_cuda
