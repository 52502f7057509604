#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>

#include "slipstream/base/word.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/transport/await_stream.h"
#include "slipstream/transport/network_transport.h"
#include "slipstream/transport/stream_marks_internal.h"
#include "slipstream/transport/stream_places_internal.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// The sending end of a worker with memory of a GPU. What the network cannot read there is copied
/// on a stream, piece by piece, to pinned memory. The thread of the driver that learns that the
/// stream has come to a piece may not call CUDA, and a network may have to. So it only says that
/// the piece is ready, and whoever drives the network posts it. Thread-safe.
class Departures {
 public:
  /// `network` outlives it.
  Departures(int device, NetworkTransport& network, StreamLimits limits);

  struct WordAt {
    std::size_t offset = 0;
    Word word = 0;
  };
  /// Follows what is enqueued on `stream`. What is enqueued there later may write `from` again,
  /// unless the network holds it (NetworkTransport::hold_source). Where `bytes` is 0 it is a word
  /// alone. Waits for the stream while there is no room.
  Status put(const RemoteRegion& to, std::size_t offset, const std::byte* from, std::size_t bytes,
             const std::optional<WordAt>& word, const gpu::Stream& stream);

  /// Waits until all that is enqueued on `stream` is done; then it is ready.
  Status await_idle(const gpu::Stream& stream);

  /// Posts what is ready. All of it is posted when this returns, by whomever.
  void post();

  /// Whether all that was put on `stream` before is posted. Wakes when it turns true.
  bool posted(const gpu::Stream& stream);

 private:
  struct Piece {
    Departures* owner = nullptr;
    std::byte* pinned = nullptr;  // its own; null where nothing is copied
    RemoteRegion to;
    std::size_t offset = 0;
    const std::byte* from = nullptr;
    std::size_t bytes = 0;
    std::optional<WordAt> word;
    std::shared_ptr<void> held;  // of the network, where `from` is the GPU's
    StreamPlaces<Piece>::Place* next_ready = nullptr;
  };
  using Places = StreamPlaces<Piece>;

  static void make_ready(void* place);
  Places::Place* next_ready();
  void attend();
  void hand_over(Piece& piece);

  const int device_;
  NetworkTransport& network_;
  const StreamLimits limits_;
  const std::shared_ptr<std::byte> pinned_;
  Places copies_;
  Places others_;  // words alone, and what is sent from where it is
  StreamMarks marks_;

  std::mutex ready_;  // guards the following; nothing is called while it is held
  Places::Place* first_ready_ = nullptr;
  Places::Place* last_ready_ = nullptr;
  std::mutex posting_;  // what is ready is posted in order
};

}  // namespace slip

#pragma GCC visibility pop
