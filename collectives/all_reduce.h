#pragma once

#include <cstddef>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/word.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// The mean of a vector over all workers, at every worker: the partial all-reduce of everyone,
/// again and again, with all that it promises.
class AllReduce {
 public:
  /// Set-up, by all workers with the same name, count, type and options; waits for them. Throws
  /// Error.
  AllReduce(const World& world, std::string_view name, std::size_t count, Dtype dtype,
            PartialAllReduceOptions options = {});

  /// See PartialAllReduce.
  static std::size_t memory(int workers, std::size_t count, Dtype dtype,
                            PartialAllReduceOptions options = {}) {
    return PartialAllReduce::memory(workers, count, dtype, options);
  }
  VectorView buffer() const { return partial_.buffer(); }

  /// Replaces `buffer()`, or the caller's vector, by the mean of all workers' vectors. Every worker
  /// averages equally often.
  Status mean() { return count(partial_.mean(everyone_)); }
  Status mean(VectorView vector) { return count(partial_.mean(everyone_, vector)); }

  /// How many operations this worker has been ahead of a peer, at most: 1 once it had to wait for
  /// one, for an all-reduce lets nobody get any further.
  Iteration max_lead() const { return partial_.has_waited() ? 1 : 0; }

 private:
  Status count(Status status) {
    if (status) [[likely]]
      ++everyone_.sequence;
    return status;
  }

  PartialAllReduce partial_;
  Group everyone_;  // the next operation
};

}  // namespace slip
