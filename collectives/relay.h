#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "slipstream/base/function_ref.h"
#include "slipstream/base/word.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/runtime/neighbourhood.h"
#include "slipstream/runtime/update_queue.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// RelaySum (Vogels et al., NeurIPS'21, Algorithm 1) on the edges of a tree: every round a worker
/// sends each neighbour the sum of its own vector and what the others of its neighbours sent it,
/// and how many vectors that sum holds. So the worker's own vector and the messages it holds sum up
/// one vector of every worker that a message has come from, older the more edges it has crossed.
///
/// A round needs the messages of the round before, which makes senders wait for each other: three
/// slots per edge are enough without any other flow control. With `staleness` (not in the paper) it
/// needs them from as many rounds before that: a message that is late is held for longer, and two
/// more slots for each such round are enough. Belongs to one thread.
class Relay {
 public:
  /// Made by all workers of the tree with the same name, count and type; waits for the neighbours.
  /// `neighbourhood` is this worker's in the tree, which has every edge in both directions.
  Relay(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
        std::size_t count, Dtype dtype, int staleness = 0);

  /// Bytes of memory at a worker with that many neighbours.
  static std::size_t memory(std::size_t neighbours, std::size_t count, Dtype dtype,
                            int staleness = 0);

  /// Sends to every neighbour what it shall have of `own` and of the messages that are held, and
  /// makes their average in the same pass, if one is wanted: its `out` may be `own`. Rounds come in
  /// order, each once.
  Status send(Iteration round, ConstVectorView own, const kernels::RelayAverage* average = nullptr);

  /// All neighbours' messages of that round are here, or else some that are fresh enough. In the
  /// first `staleness` rounds none are needed.
  bool arrived(Iteration round) const;

  /// How many rounds the neighbour that is furthest behind is behind `round`, at most.
  Iteration behind(Iteration round) const;

  /// Holds the newest messages up to that round, which has arrived, in place of those held so far.
  /// A message for which `lost` is true counts as none. Else bad_data, where one is damaged.
  Status hold(Iteration round, FunctionRef<bool(int sender, Iteration round)> lost);

  /// What is held, valid until the next `hold`: sums of `models() - 1` vectors in all.
  std::span<const ConstVectorView> messages() const { return messages_; }
  /// How many workers' vectors the messages and one of the worker's own hold.
  std::int64_t models() const;

 private:
  std::optional<Iteration> newest(std::size_t in, Iteration round, Iteration rounds) const;
  void add_up(ConstVectorView own, std::size_t first, std::size_t n,
              const kernels::RelayAverage* average);
  ConstVectorView vector(std::size_t in, Iteration round) const;
  std::int64_t count_of(std::size_t in, Iteration round) const;

  const World& world_;
  const std::vector<Neighbour> neighbours_;
  const std::size_t count_;
  const Dtype dtype_;
  const Iteration staleness_;
  UpdateQueue queue_;
  std::optional<Iteration> first_;                // round
  std::vector<std::vector<std::byte>> outgoing_;  // by neighbour: a chunk of its message
  // Of the chunk at hand; they keep their capacity.
  std::vector<VectorView> sums_;
  std::vector<ConstVectorView> pieces_;
  // Held: by neighbour, and the vectors of those that count.
  std::vector<ConstVectorView> held_;  // without data: none
  std::vector<std::int64_t> counts_;
  std::vector<ConstVectorView> messages_;
};

}  // namespace slip
