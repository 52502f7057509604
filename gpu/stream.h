#pragma once

#include <memory>
#include <optional>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"

namespace slip::gpu {

class Event;

/// A queue of work of one GPU, which it does in order; copies are the same queue. Enqueuing does
/// not wait for anything, and what fails then or later shows in `status`. Thread-safe.
class Stream {
 public:
  /// A new queue. Throws Error.
  explicit Stream(int device);
  /// The user's own, a CUstream or cudaStream_t of that GPU, which outlives this. Null: the default
  /// stream. Throws Error where there is no such GPU.
  Stream(int device, void* handle);

  int device() const { return device_; }
  /// The CUstream.
  void* handle() const { return handle_.get(); }

  /// What is enqueued from now on is done after what `event` has recorded.
  Status wait_for(const Event& event) const;

  /// Once all that is enqueued so far is done, a thread of the driver calls function(argument),
  /// which must not call CUDA. Never, where the GPU is lost.
  Status then(void (*function)(void*), void* argument) const;

  /// All that is enqueued so far is done, and without a failure.
  bool idle() const;

  /// Waits until all that is enqueued so far is done.
  Status synchronize() const;

  /// The first failure of this GPU's work, or ok; does not wait.
  Status status() const;

 private:
  int device_;
  std::shared_ptr<void> handle_;
};

/// The stream on which this thread's work on a GPU is enqueued while this lives. Without one it is
/// the GPU's default stream. They nest.
class CurrentStream {
 public:
  explicit CurrentStream(const Stream& stream);
  /// None: nothing changes.
  explicit CurrentStream(const std::optional<Stream>& stream);
  ~CurrentStream();
  CurrentStream(const CurrentStream&) = delete;
  CurrentStream& operator=(const CurrentStream&) = delete;

 private:
  const Stream* const before_;
};

/// While this lives, what this thread puts into memory of the host follows no stream: for services,
/// whose messages have nothing to do with what GPUs work at. They nest.
class Detached {
 public:
  Detached();
  ~Detached();
  Detached(const Detached&) = delete;
  Detached& operator=(const Detached&) = delete;

 private:
  const bool before_;
};

/// Whether there is one.
bool detached();

/// Where this thread's work on `device` is enqueued.
Stream current_stream(int device);

/// Waits until all that is enqueued so far on any stream of a GPU is done.
Status synchronize(int device);

/// A mark in a stream. Belongs to one thread at a time.
class Event {
 public:
  /// Throws Error.
  explicit Event(int device);

  int device() const { return device_; }
  /// Marks all that is enqueued so far.
  Status record(const Stream& stream);
  /// What was marked last is done, or will never be: then the stream's status says why. True if
  /// nothing was marked.
  bool done() const;
  /// From what `begin` marked to what this marked; both are done.
  Duration since(const Event& begin) const;

  /// The CUevent.
  void* handle() const { return handle_.get(); }

 private:
  int device_;
  std::shared_ptr<void> handle_;
};

}  // namespace slip::gpu
