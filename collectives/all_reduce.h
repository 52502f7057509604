#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/word.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"

namespace slip {

namespace all_reduce {
class Algorithm;
}

/// The mean of a vector over all workers, at every worker.
///
/// It is kernels::weighted_average over the workers in order of rank, each with weight 1 / n (its
/// error bound holds here), so the result is the same bit for bit at every worker and on every
/// transport, whichever way the bytes go:
///   - small vectors in one shot: everybody writes its own into a lane at every peer, and averages
///     what has come;
///   - others in two: worker i averages the i-th shard of all (reduce-scatter) and writes the mean
///     to everybody (all-gather), chunk by chunk. Where load and store reach the peers' buffers the
///     shard is read straight out of them; else it comes through a lane per sender.
///
/// Nothing is overwritten before its readers are done, and no acknowledgement is needed. One shot:
/// lanes alternate between two halves; to write number k into one, a worker must have finished
/// k - 1, so every peer has written its k - 1, after it read everything of k - 2. Two shots: the
/// mean of a chunk is sent after its inputs were read, and is awaited before the next operation and
/// before another chunk takes the same place in a lane; so nobody still reads what is overwritten,
/// and a mean comes into a worker's buffer only after that worker's part was read from there.
///
/// One thread. After a failure (a lost peer, an abort, a deadline) the vector's contents are
/// unspecified and every further call returns the same failure. It must not outlive its world.
class AllReduce {
 public:
  /// Set-up, by all workers with the same name, count and type; waits for them. Throws Error.
  AllReduce(const World& world, std::string_view name, std::size_t count, Dtype dtype);
  ~AllReduce();
  AllReduce(AllReduce&&) noexcept;
  AllReduce& operator=(AllReduce&&) noexcept;

  /// Bytes of registered memory that it takes at each of `workers`, at most: long vectors need
  /// their own size, and as much again at most where load and store do not reach all peers.
  static std::size_t memory(int workers, std::size_t count, Dtype dtype);

  /// This worker's registered vector: at the start of a cache line, zero at first, never moved.
  /// Peers touch it only while this worker is in `mean`.
  VectorView buffer() const;

  /// Replaces `buffer()` by the mean of all workers' buffers. Every worker calls `mean` equally
  /// often. Codes: timeout (peer() is who was missing), peer_lost, or why the world was aborted.
  Status mean();

  /// The same in the caller's own memory, of the same count and type: slower by a copy in and a
  /// copy out, which overlap with the rest, and nothing of use is left in `buffer()`. It makes no
  /// difference to the peers.
  Status mean(VectorView vector);

  /// How many operations this worker has been ahead of a peer, at most: 1 once it had to wait for
  /// one, for an all-reduce lets nobody get any further.
  Iteration max_lead() const;

 private:
  std::unique_ptr<all_reduce::Algorithm> algorithm_;
  Iteration number_ = 0;  // of the last operation; the first is 1
  Status failure_;
};

}  // namespace slip
