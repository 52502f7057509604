#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/collectives/windows_internal.h"
#include "slipstream/kernels/vector.h"

#pragma GCC visibility push(hidden)

/// Where an operation's vector and its mean lie, chunk by chunk, here and at peers.
namespace slip::partial_all_reduce {

constexpr std::size_t chunk_bytes = std::size_t{256} << 10;
/// A stage of an operation is so many chunks ahead of the next, so that they overlap.
constexpr std::size_t ahead = 2;
/// Places where chunks are staged, each used again when what was there has become a mean.
constexpr std::size_t window = 2 * ahead + 1;

// Flags of `contributed`: where a sender's peers find its part and put the means.
constexpr unsigned staged_flag = 1;
constexpr unsigned second_buffer_flag = 2;

/// Where things lie in a worker's region, the same for all: one or two buffers, then the lanes of
/// operations in one shot, two for each sender. A lane is the payload and right behind it its word,
/// so that a small vector is a single cache line.
struct Layout {
  Layout(int workers, std::size_t count, Dtype dtype, const PartialAllReduceOptions& options);

  /// Elements that begin there, in memory of that kind.
  VectorView view(std::byte* data, std::size_t elements) const {
    return {data, elements, dtype, device};
  }
  ConstVectorView view(const std::byte* data, std::size_t elements) const {
    return {data, elements, dtype, device};
  }
  std::size_t vector_bytes() const { return count * size_of(dtype); }
  std::size_t buffer(unsigned which) const { return which * round_up(vector_bytes(), line); }
  std::size_t lane(int sender, int receiver, std::size_t half) const {
    return buffer(buffers) + (slot(sender, receiver) * 2 + half) * lane_bytes;
  }
  std::size_t bytes() const;
  /// Of the lanes of other operations, where load and store do not reach a peer: one vector, but
  /// some more of a small one, so that hosts need not cut it into many chunks.
  std::size_t lanes_bytes() const;

  int workers;
  std::size_t count;  // elements of the vector
  Dtype dtype;
  int device;
  Wire wire;
  bool has_one_shot;        // it can be averaged in one shot, and
  bool has_others;          // otherwise
  unsigned buffers;         // one if in place, else two
  std::size_t word_offset;  // in a lane
  std::size_t lane_bytes;
};

/// Elements [begin, end).
struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
};

/// A vector in so many shards, each from the start of a cache line, and a shard in chunks. Every
/// shard has the same number of them; the last ones may be empty.
struct Shards {
  Shards() = default;
  /// `chunk`: elements of a chunk; more if there would be too many.
  Shards(std::size_t shards, std::size_t count, std::size_t element_bytes, std::size_t chunk);

  Range of(std::size_t place) const {
    const std::size_t begin = std::min(place * shard, count);
    return {begin, std::min(begin + shard, count)};
  }
  Range of(std::size_t place, std::size_t c) const {
    const auto [begin, end] = of(place);
    return {std::min(begin + c * chunk, end), std::min(begin + (c + 1) * chunk, end)};
  }

  std::size_t shards = 0;
  std::size_t count = 0;   // elements of the vector
  std::size_t shard = 0;   // elements of a shard, at most
  std::size_t chunk = 0;   // elements of a chunk, at most
  std::size_t chunks = 0;  // of a shard
};

/// What parts of vectors are while a transport carries them. They go to the end of the memory that
/// is theirs at the peer, which makes elements of them where they are.
class Packing {
 public:
  explicit Packing(const Layout& layout);

  bool is_lossy() const { return !packed_.empty(); }
  std::size_t bytes(std::size_t elements) const { return elements * element_bytes_; }
  /// From where they begin in their memory.
  std::size_t offset(std::size_t elements) const {
    return elements * (size_of(layout_.dtype) - element_bytes_);
  }
  /// `part`, which begins at element `first` of the vector, to be put; until the same part is
  /// packed once more.
  const void* pack(ConstVectorView part, std::size_t first);
  void unpack(VectorView part) const;
  /// Makes of `part` what who is sent it will have.
  void round(VectorView part, std::size_t first);

 private:
  const Layout& layout_;
  const std::size_t element_bytes_;
  std::span<std::uint16_t> packed_;  // a whole vector, if lossy
  std::vector<std::uint16_t> on_host_;
  std::shared_ptr<std::byte> on_gpu_;
};

/// The vector of an operation and the place of its mean, chunk by chunk.
///
/// The caller's own memory is staged through the buffer: chunk c takes the place of chunk c -
/// window, which has been collected before, and so all of it stays in the processors' caches.
class Staging {
 public:
  Staging(const Windows& windows, const Layout& layout) : windows_(windows), layout_(layout) {}

  /// `current` is the buffer with this worker's vector, or through which `vector` is staged. Unless
  /// in place, means of the former come into the other one.
  void begin(const Shards& shards, VectorView vector, unsigned current);

  const Shards& shards() const { return shards_; }
  bool staged() const { return staged_; }
  /// From which peers learn where to read and write.
  unsigned flags() const {
    return (staged_ ? staged_flag : 0) | (current_ != 0 ? second_buffer_flag : 0);
  }

  /// Chunk `c` of the shard of `place` in this worker's vector.
  VectorView part(std::size_t place, std::size_t c) const;
  /// Copies it to where peers load it, unless that is where it is.
  void stage(std::size_t place, std::size_t c) const;
  /// How many chunks peers may load from now on that chunk `c` is staged; 0: no more than before.
  std::size_t readable(std::size_t c) const {
    if (staged_) return c + 1;
    return c == 0 ? shards_.chunks : 0;
  }
  /// Where peers write its mean.
  VectorView landing(std::size_t place, std::size_t c) const;
  /// Where peers that load it find it, and where they store its mean, in the region of a worker
  /// that has said `flags`.
  std::size_t source(unsigned flags, std::size_t place, std::size_t c) const;
  std::size_t target(unsigned flags, std::size_t place, std::size_t c) const;

  /// Copies chunk `c` of every shard to where no peer touches it; of staged vectors that are not
  /// averaged in place.
  void keep(std::size_t c);
  /// What was kept, back into the vector.
  void restore();

  bool in_place() const { return layout_.buffers == 1; }

 private:
  std::size_t at(unsigned buffer, bool staged, std::size_t place, std::size_t c) const;
  VectorView kept(Range chunk) const;

  const Windows& windows_;
  const Layout& layout_;
  // Of this operation.
  Shards shards_;
  VectorView vector_;
  unsigned current_ = 0;
  bool staged_ = false;
  std::size_t kept_ = 0;  // chunks of every shard
};

}  // namespace slip::partial_all_reduce

#pragma GCC visibility pop
