#pragma once

#include <atomic>
#include <cstddef>
#include <string_view>
#include <vector>

#include "slipstream/base/word.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// The end of a run, agreed: whoever wants to stop asks; each worker answers with the iteration r
/// that it is in and promises not to pass r + slack; the last iteration is max(r) + slack for all,
/// or the run's own limit if that is earlier. Rings of workers that each stop by their own clock
/// would hang. Rank 0 collects the answers; everybody calls `poll` between and during waits.
///
/// Where no worker needs another one's next iterations there is nothing to agree on, and who is
/// behind would have to catch up for nothing: each ends with the iteration in which it hears of it.
class AgreedStop {
 public:
  enum class End { together, where_it_is };

  /// Made by all workers, with a name of its own in the world. `limit` is the last iteration of the
  /// run in any case (max_iteration: none), the same everywhere.
  AgreedStop(const World& world, std::string_view name, Iteration limit, Iteration slack = 2,
             End end = End::together);

  /// Asks for the end of the run, at this worker's next `poll`. From any thread, also in a signal
  /// handler, any number of times.
  void request() { wanted_.store(true, std::memory_order_relaxed); }

  /// True if `poll` has something to do: part of every condition that a worker waits for.
  bool pending() const;
  /// Answers, if asked; `entered` is the iteration that this worker is in. At rank 0 it collects
  /// and announces as well.
  Status poll(Iteration entered);

  /// The last iteration, of all if they end together: the run's limit while nobody has asked for an
  /// earlier one.
  Iteration last() const;
  /// This worker must not enter an iteration after this one until more is known.
  Iteration bound() const;

  /// This worker has finished its last iteration. It goes on polling until `all_finished`.
  Status finish();
  bool all_finished() const;

 private:
  bool asked() const;

  const World* world_;
  const Iteration limit_;
  const Iteration slack_;
  const End end_;
  Region own_;        // what rank 0 tells this worker
  Region collected_;  // rank 0: what the workers tell it
  RemoteRegion rank0_;
  std::vector<RemoteRegion> workers_;  // rank 0: everybody's own_
  std::atomic<bool> wanted_{false};    // relaxed: it carries nothing else
  bool requested_ = false;
  bool answered_ = false;
  Iteration promise_ = max_iteration;
  // Rank 0 only.
  bool asked_all_ = false;
  bool told_last_ = false;
  bool told_finished_ = false;
  mutable int answers_ = 0;   // ranks below have answered
  mutable int finishes_ = 0;  // ranks below have finished
  bool all_have(std::size_t first_word, int* known) const;
  Status tell_all(std::size_t word_offset, Iteration value);
};

}  // namespace slip
