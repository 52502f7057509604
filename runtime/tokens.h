#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "slipstream/base/word.h"
#include "slipstream/runtime/neighbourhood.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// Hop's token queues (ASPLOS'19, section 4) as one word per edge.
/// TokenQ(o -> i) always holds max_gap + Iter(o) - Iter(i) tokens, so it needs no queue: o puts its
/// iteration into its word at i, and i may enter iteration k while k <= Iter(o) + max_gap for every
/// out-neighbour o. A word has one writer and grows, so an old value is only conservative: i waits
/// longer, lags less, sends too much. A jump of several iterations is one store.
class Tokens {
 public:
  /// Made by all workers of the graph with the same name; waits for the neighbours. max_gap >= 1.
  Tokens(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
         int max_gap);

  // ---- As a receiver: for the in-neighbours.

  /// This worker enters `iteration`: inserts tokens at every in-neighbour. Call it when all reads
  /// of the slots of earlier iterations are complete: it is their senders' permission to write
  /// again.
  Status announce(Iteration iteration);
  /// This worker takes part no more: nobody waits for its tokens, and nobody lags behind it.
  Status announce_finished();

  // ---- As a sender; `out` indexes Neighbourhood::out.

  /// Tokens in TokenQ(o -> i) for a worker in iteration `own`, as the paper counts them.
  std::int64_t count(std::size_t out, Iteration own) const;

  /// True if a token can be taken from every out-neighbour to enter `next`.
  bool may_enter(Iteration next) const;

  /// min over the out-neighbours that still run of Iter(o) - own; 0 if none runs or some is behind.
  Iteration lag(Iteration own) const;

  /// How far this worker, entering `own`, is ahead of its slowest receiver, at most.
  Iteration lead(Iteration own) const;

  /// The sending check: true if out-neighbour `out` is past `iteration` and has no use for
  /// its update.
  bool passed(std::size_t out, Iteration iteration) const;

 private:
  /// Entered iterations, counted: 0 before iteration 0 is entered.
  std::int64_t entered(std::size_t out) const;
  bool finished(std::size_t out) const;
  Status put(Iteration iteration);

  const World* world_;
  int max_gap_;
  std::size_t out_count_;
  std::vector<Neighbour> in_;
  Region words_;                       // a line per out-neighbour, written by it
  std::vector<RemoteRegion> senders_;  // at every in-neighbour
};

}  // namespace slip
