#pragma once

#include <optional>

#include "slipstream/base/error.h"
#include "slipstream/gpu/device.h"
#include "slipstream/gpu/stream.h"

namespace slip::gpu {

/// A stream for work that goes on beside a thread's own, as that of a progress thread does, and how
/// the two are put in order. For memory of the host it does nothing. The calls belong to one thread
/// at a time.
class SideStream {
 public:
  /// Throws Error.
  explicit SideStream(int device) {
    if (device == host) return;
    stream_.emplace(device);
    mark_.emplace(device);
  }

  /// Waits until all is done: what is enqueued refers to what may go next.
  ~SideStream() {
    if (stream_) (void)stream_->synchronize();
  }
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  /// To be made current, by a CurrentStream.
  const std::optional<Stream>& stream() const { return stream_; }

  /// What is enqueued here from now on follows what this thread has enqueued so far.
  Status follow() {
    return stream_ ? order(current_stream(stream_->device()), *stream_) : Status();
  }
  /// What this thread enqueues from now on follows what is enqueued here so far.
  Status lead() { return stream_ ? order(*stream_, current_stream(stream_->device())) : Status(); }

 private:
  Status order(const Stream& first, const Stream& then) {
    if (Status s = mark_->record(first); !s) return s;
    return then.wait_for(*mark_);
  }

  std::optional<Stream> stream_;
  std::optional<Event> mark_;
};

}  // namespace slip::gpu
