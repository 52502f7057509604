#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/collectives/algorithm.h"
#include "slipstream/collectives/group.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/config.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// What a transport carries; load and store inside a host are always exact, and so is one shot.
enum class Wire {
  exact,  // the vector's own type
  /// bfloat16: half the bytes of floats, a quarter of doubles. Arithmetic stays in the vector's own
  /// type, and the mean is the same bit for bit at every member, but it differs from the exact mean
  /// by up to `bf16_error` times the mean of the members' absolute values, element by element.
  /// (A contribution, between hosts the sum of a host's, and the mean: each is rounded once, by at
  /// most 2^-8 of itself.) It has the range of a float; below 2^-126 in absolute value it is off by
  /// up to 2^-124 more.
  bf16,
};
/// See Wire::bf16.
constexpr double bf16_error = 3.02 / 256;

/// The names of both, for the options of who lets users choose.
Options describe(Algorithm& algorithm, Wire& wire);

/// How a PartialAllReduce works.
struct PartialAllReduceOptions {
  /// False: a failed operation leaves the vector as it was. True: it may leave anything there (who
  /// averages gradients has no use for them then), needs half the memory, never moves `buffer()`,
  /// and is up to twice as fast.
  bool in_place = false;
  /// How it waits for peers, if not as World::wait_until does until World::deadline: for callers
  /// who have something to answer meanwhile. It returns ok only once the condition holds.
  std::function<Status(FunctionRef<bool()> condition, std::string_view what)> wait = {};

  // The same at all workers:

  /// Operations are done on the progress thread while the worker computes; `wait` must then look at
  /// its condition whenever Progress::serve polls. That thread cannot wait for a connection, so all
  /// peers are connected to at set-up, which waits for them.
  bool in_background = false;
  Wire wire = Wire::exact;
  /// One that cannot be for a group (hierarchical, on one host) gives way to two_shot. With
  /// one_shot memory is two vectors for every worker. nccl: groups that come again and again are
  /// averaged by NCCL, others as with automatic; set-up is by all workers and waits for them. Each
  /// has a GPU of its own; not in_background.
  Algorithm algorithm = Algorithm::automatic;
  /// Whose memory `buffer()` and what peers write are in; vectors of `mean` too, then. On a GPU an
  /// operation is complete for what is enqueued later on gpu::current_stream.
  int device = gpu::host;
  /// What it is chosen by; not given: cost_model(world).
  std::optional<CostModel> costs = {};
};

/// The mean of a vector over any group of workers, at each of them (P-Reduce: Ripples/Prague,
/// ASPLOS'20, section 4). No communicators: a group needs no set-up, and one that was never seen
/// before costs what a repeated one costs. A peer is connected to when it is first met.
///
/// The mean is kernels::weighted_average over the members in order of rank, each with weight
/// 1 / size (its error bound holds here), so the result is the same bit for bit at every member and
/// on every transport, in one shot as in two. Hierarchical: over the members of each host, and then
/// the sum over hosts in order of their first members; the bound holds, too. Which way the bytes
/// go is chosen by size and group (CostModel):
///   - small vectors in one shot: everybody writes its own into a lane at every peer, and averages
///     what has come;
///   - others in two: member i averages the i-th shard of all (reduce-scatter) and writes the mean
///     to everybody (all-gather), chunk by chunk, so that transfer and arithmetic overlap. Where
///     load and store reach a peer's memory, the shard is read straight out of it; else it comes
///     through the peer's lane;
///   - hierarchical, where hosts have several members: a leader of each host adds up what its
///     members have, averages with the other leaders as above, and hands out the mean, in chunks
///     that overlap. Where every host has leaders of several rails (Topology::leaders), each
///     carries a part of the vector through its own.
///
/// NCCL, where it was asked for, has ways of its own: the mean is near the above and the same at
/// every member, but not the same bit for bit; it is exact on the wire; and `mean` returns when the
/// GPU is done, and where it fails when NCCL has let go of the vector (or has not within 10 s). It
/// takes over when a group comes for the third time, each within 32 sequence numbers, till it has
/// been away for as many: so a worker has 32 communicators at most.
///
/// Nothing is overwritten before its readers are done. Every word says its group's sequence, which
/// only rises, and an operation is complete at a member when it has read every contribution to its
/// shard and received every mean. Hence:
///   - A mean goes to a member after its contribution to this group has come, that is, after its
///     operation before is complete: nobody reads or writes any more where it goes.
///   - One shot: a sender's lane has two halves, which their common operations use in turn. To
///     write number k of these, it has finished k - 1, so the receiver had come to k - 1, and had
///     read all of k - 2.
///   - Two shots through lanes: the lanes are cut anew for every group, one for each sender.
///     Nobody writes before the receiver has said `ready` for this very group, which it does when
///     its operation before is complete and nothing is under way to it. It need not say so if that
///     operation was with the same peer and has the sequence before: nothing can lie between.
///   - Hierarchical: a row of a lane is used again `window` rows later, when its mean has come
///   back,
///     and so it was read. A sum goes to other hosts only if, after it was made, none of its
///     members had given up.
///   - What is staged because a peer cannot reach it (the caller's own memory) takes a place that
///     is used again `window` chunks later; that chunk's mean has then come, so it was read.
///
/// A failure (a lost peer, an abort, a deadline) is told to the members: their waits end, and none
/// of them succeeds with a vector that the caller of a failed member may change already. Who fails
/// has its vector as it was (but for `in_place`), for means come beside it: into a second buffer
/// that takes over when all have come, or, where they go straight into the caller's memory, with a
/// copy kept until then. Who was done before has the mean. After a failure every further call
/// returns the same: what is under way to this object is not known any more.
///
/// One thread. It must not outlive its world.
class PartialAllReduce {
 public:
  /// By every worker that will be in a group, at any time, with the same name, count, type and
  /// options. Waits for nobody, but for World::topology() where hosts have several workers. Throws
  /// Error.
  PartialAllReduce(const World& world, std::string_view name, std::size_t count, Dtype dtype,
                   PartialAllReduceOptions options = {});
  ~PartialAllReduce();
  PartialAllReduce(PartialAllReduce&&) noexcept;
  PartialAllReduce& operator=(PartialAllReduce&&) noexcept;

  /// Bytes of registered memory that it takes at each of `workers`, at most: two vectors (one if
  /// `in_place`), and one more where load and store do not reach all peers (up to eight of those
  /// below 128 KiB). With Wire::bf16 2 bytes per element of its own come on top.
  static std::size_t memory(int workers, std::size_t count, Dtype dtype,
                            PartialAllReduceOptions options = {});

  /// This worker's registered vector: at the start of a cache line, zero at first. Unless
  /// `in_place`, it may be somewhere else after a `mean()`: two buffers take turns. Peers touch it
  /// only while this worker is in `mean`.
  VectorView buffer() const;

  // How it averages a group, which this worker need not be in.
  GroupShape shape(const Group& group) const;
  bool possible(Algorithm algorithm, const Group& group) const;
  /// The one that it takes; never `automatic`.
  Algorithm algorithm(const Group& group) const;

  /// Optional: says early, as soon as the next group is known and while this worker still computes,
  /// that it will be in it: connects to its members, and spares them the wait for `ready`. The next
  /// operation must be of this group.
  Status announce(const Group& group);

  /// Replaces `buffer()` by the mean of the members' vectors; this worker is one of them. Every
  /// member calls it for every group that it is in, in order of sequence. Codes: timeout (peer() is
  /// who was missing), peer_lost, group_broken (a member gave up), or why the world was aborted;
  /// invalid_argument for what is no group or not the next, after which it goes on working.
  Status mean(const Group& group);

  /// The same in the caller's own memory, of the same count and type: slower by a copy in and a
  /// copy out, which overlap with the rest, and nothing of use is left in `buffer()`. It makes no
  /// difference to the peers. If `in_place`, the vector may also be `buffer()`.
  Status mean(const Group& group, VectorView vector);

  /// True once an operation had to wait for a peer.
  bool has_waited() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace slip
