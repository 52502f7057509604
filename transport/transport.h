#pragma once

#include <cstddef>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/word.h"
#include "slipstream/transport/region.h"

namespace slip {

/// Moves bytes between workers with one-sided writes. One object per worker.
///
/// Order: words to one peer become visible in posting order, and each only after every byte put to
/// that peer before it, its own payload included. A word has one writer, and is put as a word
/// alone. Bytes may be seen before a word that was put earlier: what is still read there, or under
/// way to there, is put over once the peer has confirmed it, or once `drained`. Memory of GPUs: a
/// put into a region of a GPU takes its payload from memory of this worker's GPU, or pinned memory
/// of the host. It follows what is enqueued on gpu::current_stream, and takes effect there: the
/// source may be written by what is enqueued later, where the host might write it (see
/// `copies_at_post`), and the word becomes visible, as any other, after every byte. The call waits
/// only where there is no room for what is under way, or where its payload goes to the host's
/// memory. A bare word of a worker that has such memory follows what is enqueued, too, whatever
/// region it goes to (unless gpu::Detached): so a token follows the kernels that read the slots.
/// What is enqueued and fails announces nothing, and shows in gpu::Stream::status. Faults that a
/// backend may show: delay, partition, cut, a dead peer. Never loss, duplication or reordering.
/// What keeps this, backend by backend: docs/ordering.md. Threads: the hot-path calls of one object
/// come from its worker and, for the services that run there, from the progress thread; order is
/// that of each thread's own puts. allocate and attach may be called from any thread.
class Transport {
 public:
  virtual ~Transport() = default;

  virtual std::string_view name() const = 0;

  // ---- Set-up: these throw Error.

  /// New memory that peers may write, of the host or of a GPU. It is reserved now, so that it
  /// cannot run out later. Words put into it wake `bell`.
  virtual Region allocate(std::size_t bytes, Bell bell = Bell::worker, int device = gpu::host) = 0;

  /// Opens `peer`'s region by its key. Connects to the peer on first use.
  virtual RemoteRegion attach(int peer, std::string_view key) = 0;

  // ---- Hot path: no allocation, no lock, no log; the one system call allowed wakes a sleeper.

  /// Writes `bytes` from `from` to the peer's region at `offset`.
  virtual Status put(const RemoteRegion& to, std::size_t offset, const void* from,
                     std::size_t bytes) = 0;

  /// The same, and then the word at `word_offset` (a multiple of 8) of the same region. With no
  /// payload (bytes == 0) it is a bare signal.
  virtual Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                            std::size_t bytes, std::size_t word_offset, Word word) = 0;

  /// True if the source of a put may be reused as soon as the call returns. Else that does not hold
  /// for sources inside of Regions of this transport, which it sends without a copy: these may be
  /// written again once `drained`, or once the peer shows that it has what was put; and freed at
  /// any time.
  virtual bool copies_at_post() const = 0;

  /// True once every put to `peer` has taken effect there; of those that follow streams, what was
  /// put on gpu::current_stream. A condition to wait for; when it turns
  /// true the worker's doorbell is rung, and its progress thread's where puts do not copy.
  virtual bool drained(int peer) = 0;

  // ---- Progress: what the process's progress thread drives (see runtime/progress.h).

  /// Readable when there is something to drive; -1: never. Armed by `arm`.
  virtual int progress_fd() const { return -1; }
  /// Asks for `progress_fd` to become readable on the next event. The caller must look once more
  /// at what it serves before it sleeps.
  virtual void arm() {}
  /// Drives whatever is pending; withdraws `arm`. Called every second at least.
  virtual void progress() {}

  // ---- And what the worker drives by itself while it waits.

  /// Drives once, and so takes driving over for the next few milliseconds.
  virtual void drive() {}
  /// The worker goes to sleep: the progress thread drives again.
  virtual void rest() {}
};

}  // namespace slip
