#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "slipstream/collectives/latest_slots.h"
#include "slipstream/gpu/side_stream.h"
#include "slipstream/runtime/neighbourhood.h"
#include "slipstream/runtime/progress.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// Messages in the background, as DivShare (WWW'25) and SWIFT (ICLR'23) send them: what a worker
/// posts leaves while it goes on computing, latest wins at the receiver (see LatestSlots), and
/// nobody ever waits.
///
/// A put cannot be recalled. So messages wait in a queue of our own, of which only a small window
/// is posted, and the next follows when one has arrived: a flush drops all that was not posted.
/// Those for a receiver that has no slot to spare just then let others pass. Two threads meet here,
/// the worker's and the progress thread; a lock is held for the length of a look at the slots. On a
/// GPU messages leave on a stream of their own, beside the worker's.
class Mailbox {
 public:
  using Message = LatestSlots::Message;
  using Keep = LatestSlots::Keep;

  /// One message to one neighbour: bytes of `buffer`, which nobody changes any more. On a GPU it
  /// was written by what is enqueued by whoever posts it.
  struct Letter {
    std::size_t out = 0;  // index of Neighbourhood::out
    int kind = 0;
    Iteration round = 0;  // goes up for each kind and receiver, in answers, too
    std::shared_ptr<const std::byte> buffer;
    std::size_t first = 0;
    std::size_t bytes = 0;
  };

  /// What the mailbox is made for.
  struct Options {
    std::size_t bytes = 0;  // of the largest message
    int kinds = 1;
    int device = gpu::host;  // whose memory messages and buffers are in, as at all workers
    /// A message that has come counts as lost. Called with the lock held, as is `answer`.
    std::function<bool(const Message&)> lost = {};
    /// What is sent, behind all that waits, upon a message.
    std::function<std::optional<Letter>(const Message&)> answer = {};
  };

  /// Made by all workers with the same name and options; waits for the neighbours. Throws Error.
  Mailbox(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
          Options options);

  static std::size_t memory(std::size_t in_neighbours, std::size_t out_neighbours,
                            std::size_t bytes, int kinds);

  /// Messages that are posted and have not arrived: at most one on the wire, one behind it, and as
  /// many small ones as their acknowledgements take.
  static std::size_t window(int kinds);

  /// Memory for the next letters, not in use any more.
  std::shared_ptr<std::byte> buffer(std::size_t bytes);

  /// What is posted from now on, as an answer too, follows what this thread has enqueued on a GPU.
  Status follow();

  /// Sends these letters in their order, but for one that has to wait for a slot; where it comes
  /// after a newer one it counts as replaced. With `flush`, what waits to be posted is dropped
  /// first.
  Status post(std::span<const Letter> letters, bool flush);

  /// The newest messages, by kind and then by sender; to be read until `give_back`, once. With
  /// Keep::newest they stay, to be taken again, until newer ones have come.
  std::span<const Message> take();
  Status give_back(Keep keep = Keep::none);

  /// Letters that wait to be posted.
  std::size_t waiting() const;

  /// Adds what was sent beside the worker to its counters, as post() and take() do; on its thread.
  void count_sent();

 private:
  bool progress();
  Status pump();
  void add_sent();
  void count();

  /// A message that is posted and has not arrived.
  struct UnderWay {
    std::size_t slot = 0;
    std::shared_ptr<const std::byte> buffer;  // which a GPU may have to read still
  };
  struct Memory {
    std::shared_ptr<std::byte> buffer;
    std::size_t bytes = 0;
  };

  const World& world_;
  const Options options_;
  mutable std::mutex mutex_;  // guards what follows
  LatestSlots slots_;
  std::deque<Letter> queue_;
  std::vector<UnderWay> under_way_;
  std::vector<Memory> buffers_;
  gpu::SideStream side_;    // of all that is posted and given back
  std::uint64_t sent_ = 0;  // not counted yet
  std::uint64_t bytes_ = 0;
  std::unique_ptr<Progress::Handle> serving_;  // last: it is gone before what it uses
};

}  // namespace slip
