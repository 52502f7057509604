#include <algorithm>
#include <utility>

#include "slipstream/gpu/failures_internal.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/transport/departures_internal.h"

namespace slip {
namespace {

constexpr std::size_t piece_bytes = std::size_t{512} << 10;
constexpr std::size_t most_copies = 16;
constexpr std::size_t most_others = 256;

}  // namespace

Departures::Departures(int device, NetworkTransport& network, StreamLimits limits)
    : device_(device),
      network_(network),
      limits_(std::move(limits)),
      pinned_(gpu::allocate_pinned(device, most_copies * piece_bytes)),
      copies_(most_copies),
      others_(most_others),
      marks_([own = network.doorbell(), &network] {
        wake_worker(*own);
        network.ring(Bell::progress);
      }) {
  // Once round.
  for (std::size_t i = 0; i < most_copies; ++i) {
    copies_.next().item.pinned = pinned_.get() + i * piece_bytes;
  }
}

Status Departures::put(const RemoteRegion& to, std::size_t offset, const std::byte* from,
                       std::size_t bytes, const std::optional<WordAt>& word,
                       const gpu::Stream& stream) {
  const StreamMarks::Put put(marks_, stream);
  std::shared_ptr<void> held = bytes > 0 ? network_.hold_source(to, from, bytes) : nullptr;
  const bool is_copied = bytes > 0 && held == nullptr;
  std::size_t done = 0;
  do {
    Places::Place* place = nullptr;
    const auto has_room = [&] {
      place = (is_copied ? copies_ : others_).take();
      if (place != nullptr) return true;
      attend();
      return false;
    };
    if (Status s = await_stream(stream, limits_, has_room); !s) return s;
    Piece& piece = place->item;
    piece.owner = this;
    piece.to = to;
    piece.offset = offset + done;
    piece.from = is_copied ? piece.pinned : from;
    piece.bytes = is_copied ? std::min(piece_bytes, bytes - done) : bytes;
    piece.held = std::move(held);
    if (is_copied) {
      if (Status s = gpu::copy(piece.pinned, from + done, piece.bytes, stream); !s) {
        piece.to = {};
        Places::give_back(*place);
        return s;
      }
    }
    done += piece.bytes;
    piece.word = done == bytes ? word : std::nullopt;
    if (Status s = stream.then(&make_ready, place); !s) {
      gpu::note(s, device_);  // the piece is still copied to: nothing more is put
      return s;
    }
  } while (done < bytes);
  return {};
}

Status Departures::await_idle(const gpu::Stream& stream) {
  const auto is_idle = [&] {
    if (stream.idle()) return true;
    attend();
    return false;
  };
  return await_stream(stream, limits_, is_idle);
}

/// Who waits may be who drives, or keep who does; and the stream may wait for a word that comes.
void Departures::attend() {
  post();
  network_.attend();
}

/// A call on a stream.
void Departures::make_ready(void* argument) {
  auto* const place = static_cast<Places::Place*>(argument);
  Departures& self = *place->item.owner;
  {
    const std::lock_guard lock(self.ready_);
    place->item.next_ready = nullptr;
    (self.last_ready_ != nullptr ? self.last_ready_->item.next_ready : self.first_ready_) = place;
    self.last_ready_ = place;
  }
  self.network_.ring(Bell::progress);
}

StreamPlaces<Departures::Piece>::Place* Departures::next_ready() {
  const std::lock_guard lock(ready_);
  Places::Place* const first = first_ready_;
  if (first == nullptr) return nullptr;
  first_ready_ = first->item.next_ready;
  if (first_ready_ == nullptr) last_ready_ = nullptr;
  return first;
}

void Departures::post() {
  const std::lock_guard lock(posting_);
  while (Places::Place* const place = next_ready()) {
    hand_over(place->item);
    Places::give_back(*place);
  }
}

/// Nothing behind a failure: no word may come whose payload did not.
void Departures::hand_over(Piece& piece) {
  Status status = gpu::noted(device_);
  if (status) {
    // Pinned memory is in no region: the network has copied it when this returns.
    status = piece.word ? network_.put_signal(piece.to, piece.offset, piece.from, piece.bytes,
                                              piece.word->offset, piece.word->word)
                        : network_.put(piece.to, piece.offset, piece.from, piece.bytes);
  }
  // Of a lost peer the network tells by itself.
  if (status.code() != Code::peer_lost) gpu::note(status, device_);
  piece.to = {};
  piece.held.reset();
}

bool Departures::posted(const gpu::Stream& stream) {
  if (!marks_.passed(stream)) return false;
  post();
  return true;
}

}  // namespace slip
