#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/collectives/windows_internal.h"
#include "slipstream/kernels/vector.h"

namespace slip::partial_all_reduce {

/// Where things lie in a worker's region, the same for all: one or two buffers, then the lanes of
/// operations in one shot, two for each sender. A lane is the payload and right behind it its word,
/// so that a small vector is a single cache line.
struct Layout {
  Layout(int workers, std::size_t count, Dtype dtype, const PartialAllReduceOptions& options);

  std::size_t vector_bytes() const { return count * size_of(dtype); }
  std::size_t buffer(unsigned which) const { return which * round_up(vector_bytes(), line); }
  std::size_t lane(int sender, int receiver, std::size_t half) const {
    return buffer(buffers) + (slot(sender, receiver) * 2 + half) * lane_bytes;
  }
  std::size_t bytes() const;

  int workers;
  std::size_t count;  // elements of the vector
  Dtype dtype;
  bool in_one_shot;
  unsigned buffers;         // one if in place, else two
  std::size_t word_offset;  // in a lane
  std::size_t lane_bytes;
};

/// Everybody sends everything to everybody.
class OneShot {
 public:
  OneShot(Windows& windows, const Layout& layout);
  Status mean(const Operation& operation, VectorView vector);

 private:
  Status send(const Peer& peer, std::size_t at, VectorView vector, Word word) const;

  Windows& windows_;
  const Layout& layout_;
  std::vector<ConstVectorView> inputs_;  // by place
  std::vector<double> weights_;
};

/// Elements [begin, end).
struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
};

/// A vector in one shard per member, each from the start of a cache line, and a shard in chunks.
/// Every shard has the same number of them; the last ones may be empty.
struct Shards {
  Shards() = default;
  Shards(std::size_t members, std::size_t count, std::size_t element_bytes);

  Range of(std::size_t place) const {
    const std::size_t begin = std::min(place * shard, count);
    return {begin, std::min(begin + shard, count)};
  }
  Range of(std::size_t place, std::size_t c) const {
    const auto [begin, end] = of(place);
    return {std::min(begin + c * chunk, end), std::min(begin + (c + 1) * chunk, end)};
  }

  std::size_t count = 0;   // elements of the vector
  std::size_t shard = 0;   // elements of a shard, at most
  std::size_t chunk = 0;   // elements of a chunk, at most
  std::size_t chunks = 0;  // of a shard
};

/// Reduce-scatter and all-gather.
///
/// A member's shard is cut into chunks, which go through three stages: contribute (everybody makes
/// its part readable to that member), reduce (that member writes the mean to everybody) and collect
/// (everybody waits for it). A stage is `ahead` chunks ahead of the next, so that they overlap.
///
/// The caller's own memory is staged through the buffer: chunk c takes the place of chunk c -
/// window, which has been collected before, and so all of it stays in the processors' caches.
class TwoShot {
 public:
  TwoShot(Windows& windows, const Layout& layout);

  /// Of the lanes that it opens where load and store do not reach a peer.
  static std::size_t lanes_bytes(const Layout& layout);

  /// Says to those members who reach this worker through lanes that these are ready.
  Status announce(const Operation& operation);

  /// `current` is the buffer with this worker's vector, or through which `vector` is staged. Unless
  /// in place, means of the former come into the other one. A failure leaves the vector as it was.
  Status mean(const Operation& operation, VectorView vector, unsigned current);

 private:
  /// Another member.
  struct Party {
    Peer* peer;
    std::size_t place;
    std::size_t own_lane;  // this worker's, in the member's lanes
    std::size_t lane;      // the member's, in this worker's

    // Of the chunk that is being reduced.
    const std::byte* input = nullptr;
    std::size_t output = 0;  // in the member's region
  };

  void begin(const Operation& operation, VectorView vector, unsigned current);
  Status run();
  Status contribute(std::size_t c);
  Status offer(Party& party, VectorView part, std::size_t c);
  Status reduce(std::size_t c);
  Status find(Party& party, std::size_t c);
  void reduce_block(Range block, std::size_t in_chunk);
  Status collect(std::size_t c);
  Status complete();

  unsigned flags() const;
  /// Where this worker's shard of the mean goes.
  VectorView result() const { return staged_ || in_place() ? vector_ : buffer(1 - current_); }
  void keep(std::size_t c);
  void restore();

  bool in_place() const { return layout_.buffers == 1; }
  std::size_t bytes(std::size_t elements) const { return elements * size_of(layout_.dtype); }
  /// Where chunk `c` begins in a shard's or a lane's memory, in bytes.
  std::size_t offset(std::size_t c, bool staged) const;
  /// Chunk `c` of the shard of `place`, where it is staged.
  VectorView staged_chunk(std::size_t place, std::size_t c) const;
  VectorView buffer(unsigned which) const;

  Windows& windows_;
  const Layout& layout_;
  std::vector<ConstVectorView> inputs_;  // by place
  std::vector<double> weights_;
  // Of this operation.
  std::uint64_t sequence_ = 0;
  std::size_t place_ = 0;      // of this worker
  std::vector<Party> others_;  // in the order in which they are served
  Shards shards_;
  Range own_;  // this worker's shard
  VectorView vector_;
  unsigned current_ = 0;
  bool staged_ = false;
  std::size_t kept_ = 0;  // chunks of every shard
};

}  // namespace slip::partial_all_reduce
