#include <algorithm>
#include <cstring>
#include <vector>

#include "slipstream/collectives/all_reduce_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::all_reduce {
namespace {

// A worker's shard is cut into chunks, which go through three stages: contribute (everybody makes
// its part readable to that worker), reduce (that worker writes the mean to everybody) and collect
// (everybody waits for it). A stage is `ahead` chunks ahead of the next, so that they overlap.
//
// What passes through lanes, or through the buffer of a worker that averages its own memory, is
// staged: chunk c takes the place of chunk c - window, which has been collected before, and so all
// of it stays in the processors' caches.
constexpr std::size_t chunk_bytes = std::size_t{256} << 10;
constexpr std::size_t ahead = 2;
constexpr std::size_t window = 2 * ahead + 1;
// A mean is copied to mapped peers while it is in the first-level cache.
constexpr std::size_t block_bytes = std::size_t{8} << 10;

/// Elements [begin, end).
struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
};

std::size_t shard_bytes(int workers, std::size_t vector_bytes) {
  const auto n = static_cast<std::size_t>(workers);
  return round_up((vector_bytes + n - 1) / n, line);
}

/// A vector in one shard per worker, each from the start of a cache line, and a shard in chunks.
/// Every shard has the same number of them; the last ones may be empty.
struct Shards {
  Shards(int workers, std::size_t vector_bytes, std::size_t element_bytes)
      : count(vector_bytes / element_bytes),
        shard(shard_bytes(workers, vector_bytes) / element_bytes),
        chunk(chunk_bytes / element_bytes),
        chunks(std::max<std::size_t>(1, (shard + chunk - 1) / chunk)) {}

  Range of(int worker) const {
    const std::size_t begin = std::min(static_cast<std::size_t>(worker) * shard, count);
    return {begin, std::min(begin + shard, count)};
  }
  Range of(int worker, std::size_t c) const {
    const auto [begin, end] = of(worker);
    return {std::min(begin + c * chunk, end), std::min(begin + (c + 1) * chunk, end)};
  }

  std::size_t count;   // elements of the vector
  std::size_t shard;   // elements of a shard, at most
  std::size_t chunk;   // elements of a chunk, at most
  std::size_t chunks;  // of a shard
};

/// What a sender says: how many chunks it has contributed, or reduced, over all operations; and
/// where in its buffer its peers find its part and put the means: staged or in place.
Word progress_word(std::uint16_t incarnation, Iteration chunks, bool staged) {
  return make_word(incarnation, chunks * 2 + staged);
}
Iteration chunks_of(Word word) { return iteration_of(word) / 2; }
bool staged_of(Word word) { return iteration_of(word) % 2 != 0; }

constexpr std::size_t contributed_offset = 0;  // in a sender's line
constexpr std::size_t reduced_offset = sizeof(Word);

struct Peer {
  RemoteRegion region;      // its buffer, then a line of words per sender
  RemoteRegion lanes;       // where it is not mapped: per sender a line of words and a window
  const std::byte* inputs;  // its contributions to this worker's shard
  Region words;             // here: where it says `contributed`
  std::size_t contributed;
  std::size_t reduced;  // in region_

  // Of the chunk that is being reduced.
  const std::byte* input = nullptr;
  std::size_t output = 0;  // in `region`

  int rank() const { return region.peer; }
};

class TwoShot final : public Algorithm {
 public:
  TwoShot(const World& world, std::string_view name, std::size_t count, Dtype dtype);

  VectorView buffer() const override { return buffer_; }
  Status mean(VectorView vector, Iteration number) override;

 private:
  void open_lanes(std::string_view name);

  Status contribute(VectorView vector, std::size_t c);
  Status reduce(VectorView vector, std::size_t c);
  void reduce_block(VectorView vector, Range block, std::size_t in_chunk);
  Status collect(VectorView vector, std::size_t c);

  /// In chunks of all operations: the end of chunk `c` of this one.
  Iteration position(std::size_t c) const { return begin_ + c + 1; }
  Word word(Iteration position) const {
    return progress_word(world_.incarnation(), position, staged_);
  }
  std::size_t bytes(std::size_t elements) const { return elements * size_of(buffer_.dtype); }
  /// Where chunk `c` begins in a shard's or a lane's memory, in bytes.
  std::size_t place(std::size_t c, bool staged) const {
    return bytes((staged ? c % window : c) * shards_.chunk);
  }
  /// Chunk `c` of worker `shard` where it is staged in this worker's buffer.
  VectorView staged_chunk(int shard, std::size_t c) const {
    const std::size_t first = shards_.of(shard).begin + c % window * shards_.chunk;
    return buffer_.slice(first, shards_.of(shard, c).size());
  }
  std::size_t line_of(int sender, int receiver) const {
    return round_up(buffer_.bytes(), line) + slot(sender, receiver) * line;
  }

  const Shards shards_;
  const Range own_;  // this worker's shard
  Region region_;
  Region lanes_;
  VectorView buffer_;
  std::vector<Peer> peers_;              // in the order in which they are served
  std::vector<ConstVectorView> inputs_;  // by rank
  std::vector<double> weights_;
  // Of this operation.
  Iteration begin_ = 0;  // chunks of the operations before it
  bool staged_ = false;
};

std::size_t region_size(int workers, std::size_t bytes) {
  return round_up(bytes, line) + static_cast<std::size_t>(workers - 1) * line;
}
std::size_t lane_size(int workers, std::size_t bytes) {
  return line + std::min(shard_bytes(workers, bytes), window * chunk_bytes);
}
std::size_t lanes_size(int workers, std::size_t bytes) {
  return static_cast<std::size_t>(workers - 1) * lane_size(workers, bytes);
}

TwoShot::TwoShot(const World& world, std::string_view name, std::size_t count, Dtype dtype)
    : Algorithm(world, name),
      shards_(world.size(), count * size_of(dtype), size_of(dtype)),
      own_(shards_.of(world.rank())),
      region_(world.allocate(name, region_size(world.size(), count * size_of(dtype)))),
      buffer_{region_.data(), count, dtype},
      inputs_(static_cast<std::size_t>(world.size())),
      weights_(static_cast<std::size_t>(world.size()), 1.0 / world.size()) {
  // Everybody begins with its right-hand neighbour, so that nobody is served by all at once.
  for (int i = 1; i < world.size(); ++i) {
    const int peer = (world.rank() + i) % world.size();
    RemoteRegion region = attach(peer, name, region_.bytes());
    const std::byte* inputs = region.memory.get() + bytes(own_.begin);
    const std::size_t words = line_of(peer, world.rank());
    peers_.push_back({.region = std::move(region),
                      .lanes = {},
                      .inputs = inputs,
                      .words = region_,
                      .contributed = words + contributed_offset,
                      .reduced = words + reduced_offset});
  }
  if (!std::all_of(peers_.begin(), peers_.end(), [](auto& p) { return p.region.mapped(); })) {
    open_lanes(std::string(name) + "/lanes");
  }
}

/// Two workers either map each other's memory or use lanes, both of them.
void TwoShot::open_lanes(std::string_view name) {
  lanes_ = world_.allocate(name, lanes_size(world_.size(), buffer_.bytes()));
  for (Peer& peer : peers_) {
    if (peer.region.mapped()) continue;
    peer.lanes = attach(peer.rank(), name, lanes_.bytes());
    peer.words = lanes_;
    const std::size_t lane =
        slot(peer.rank(), world_.rank()) * lane_size(world_.size(), buffer_.bytes());
    peer.contributed = lane + contributed_offset;
    peer.inputs = lanes_.data() + lane + line;
  }
}

Status TwoShot::mean(VectorView vector, Iteration number) {
  begin_ = (number - 1) * shards_.chunks;
  staged_ = vector.data != buffer_.data;
  for (std::size_t step = 0; step < shards_.chunks + 2 * ahead; ++step) {
    if (step < shards_.chunks) {
      if (Status s = contribute(vector, step); !s) return s;
    }
    if (step >= ahead && step - ahead < shards_.chunks) {
      if (Status s = reduce(vector, step - ahead); !s) return s;
    }
    if (step >= 2 * ahead) {
      if (Status s = collect(vector, step - 2 * ahead); !s) return s;
    }
  }
  for (const Peer& peer : peers_) {
    if (Status s = await_local_completion(peer.region); !s) return s;
  }
  world_.counters().bytes_sent.add(vector.bytes() - bytes(own_.size()) +
                                   peers_.size() * bytes(own_.size()));
  return {};
}

Status TwoShot::contribute(VectorView vector, std::size_t c) {
  for (const Peer& peer : peers_) {
    const Range chunk = shards_.of(peer.rank(), c);
    const VectorView part = vector.slice(chunk.begin, chunk.size());
    if (!peer.region.mapped()) {
      const std::size_t lane =
          slot(world_.rank(), peer.rank()) * lane_size(world_.size(), buffer_.bytes());
      if (Status s = world_.transport().put_signal(peer.lanes, lane + line + place(c, true),
                                                   part.data, part.bytes(),
                                                   lane + contributed_offset, word(position(c)));
          !s) {
        return s;
      }
      continue;
    }
    const std::size_t own_word = line_of(world_.rank(), peer.rank()) + contributed_offset;
    if (staged_) {
      kernels::copy(staged_chunk(peer.rank(), c), part);
      peer.region.signal_mapped(own_word, word(position(c)));
    } else if (c == 0) {  // all of it is there
      peer.region.signal_mapped(own_word, word(position(shards_.chunks - 1)));
    }
  }
  return {};
}

Status TwoShot::reduce(VectorView vector, std::size_t c) {
  for (Peer& peer : peers_) {
    const auto said = [&] { return peer.words.word(peer.contributed); };
    const auto contributed = [&] { return chunks_of(said()) >= position(c); };
    if (Status s = await(peer.rank(), contributed); !s) return s;
    const bool staged = staged_of(said());
    peer.input = peer.inputs + place(c, staged || !peer.region.mapped());
    peer.output = bytes(own_.begin) + place(c, staged);
  }
  const Range chunk = shards_.of(world_.rank(), c);
  const std::size_t block = block_bytes / size_of(vector.dtype);
  for (std::size_t begin = chunk.begin; begin < chunk.end; begin += block) {
    reduce_block(vector, {begin, std::min(begin + block, chunk.end)}, bytes(begin - chunk.begin));
  }
  const VectorView mean = vector.slice(chunk.begin, chunk.size());
  for (const Peer& peer : peers_) {
    const std::size_t own_word = line_of(world_.rank(), peer.rank()) + reduced_offset;
    if (peer.region.mapped()) {
      peer.region.signal_mapped(own_word, word(position(c)));
    } else if (Status s = world_.transport().put_signal(peer.region, peer.output, mean.data,
                                                        mean.bytes(), own_word, word(position(c)));
               !s) {
      return s;
    }
  }
  return {};
}

/// `in_chunk`: where the block begins, in bytes.
void TwoShot::reduce_block(VectorView vector, Range block, std::size_t in_chunk) {
  const VectorView mean = vector.slice(block.begin, block.size());
  inputs_[static_cast<std::size_t>(world_.rank())] = mean;
  for (const Peer& peer : peers_) {
    inputs_[static_cast<std::size_t>(peer.rank())] = {peer.input + in_chunk, mean.count,
                                                      mean.dtype};
  }
  kernels::weighted_average(mean, inputs_, weights_);
  for (const Peer& peer : peers_) {
    if (!peer.region.mapped()) continue;
    std::memcpy(peer.region.memory.get() + peer.output + in_chunk, mean.data, mean.bytes());
  }
}

Status TwoShot::collect(VectorView vector, std::size_t c) {
  for (const Peer& peer : peers_) {
    const auto reduced = [&] { return chunks_of(region_.word(peer.reduced)) >= position(c); };
    if (Status s = await(peer.rank(), reduced); !s) return s;
    if (!staged_) continue;
    const Range chunk = shards_.of(peer.rank(), c);
    kernels::copy(vector.slice(chunk.begin, chunk.size()), staged_chunk(peer.rank(), c));
  }
  return {};
}

}  // namespace

std::size_t two_shot_memory(int workers, std::size_t bytes) {
  return region_size(workers, bytes) + lanes_size(workers, bytes);
}

std::unique_ptr<Algorithm> make_two_shot(const World& world, std::string_view name,
                                         std::size_t count, Dtype dtype) {
  return std::make_unique<TwoShot>(world, name, count, dtype);
}

}  // namespace slip::all_reduce
