#include <algorithm>
#include <cstring>
#include <vector>

#include "slipstream/collectives/all_reduce_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::all_reduce {
namespace {

// A worker's shard is cut into chunks, which go through three stages: contribute (everybody makes
// its part readable to that worker), reduce (that worker writes the mean into all buffers) and
// collect (everybody waits for it). The stages of successive chunks overlap. Two words per sender
// count the chunks that it has contributed and reduced, over all operations.
constexpr std::size_t chunk_bytes = std::size_t{256} << 10;
// How many chunks a stage is ahead of the next one.
constexpr std::size_t ahead = 2;
// A mean is copied to mapped peers while it is in the first-level cache.
constexpr std::size_t block_bytes = std::size_t{8} << 10;

/// Elements [begin, end).
struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
};

/// A vector in one shard per worker, each from the start of a cache line, and a shard in chunks.
/// Every shard has the same number of them; the last ones may be empty.
struct Shards {
  Shards(int workers, std::size_t vector_bytes, std::size_t element_bytes)
      : count(vector_bytes / element_bytes),
        shard(shard_bytes(workers, vector_bytes) / element_bytes),
        chunk(chunk_bytes / element_bytes),
        chunks(std::max<std::size_t>(1, (shard + chunk - 1) / chunk)) {}

  static std::size_t shard_bytes(int workers, std::size_t vector_bytes) {
    const auto n = static_cast<std::size_t>(workers);
    return round_up((vector_bytes + n - 1) / n, line);
  }

  Range of(int worker) const {
    const std::size_t begin = std::min(static_cast<std::size_t>(worker) * shard, count);
    return {begin, std::min(begin + shard, count)};
  }
  Range of(int worker, std::size_t c) const {
    const Range all = of(worker);
    return {std::min(all.begin + c * chunk, all.end),
            std::min(all.begin + (c + 1) * chunk, all.end)};
  }

  std::size_t count;   // elements of the vector
  std::size_t shard;   // elements of a shard, at most
  std::size_t chunk;   // elements of a chunk, at most
  std::size_t chunks;  // of a shard
};

struct Peer {
  RemoteRegion region;     // its buffer, then a line of words per sender
  RemoteRegion lanes;      // where it is not mapped: per sender a line of words, then a shard
  const std::byte* input;  // its contribution to this worker's shard
  Region words;            // here: where it writes `contributed`
  std::size_t contributed;
  std::size_t reduced;  // in region_

  int rank() const { return region.peer; }
};

class TwoShot final : public Algorithm {
 public:
  TwoShot(const World& world, std::string_view name, std::size_t count, Dtype dtype);

  VectorView buffer() const override { return buffer_; }
  Status mean(VectorView vector, Iteration number) override;

 private:
  Status contribute(VectorView vector, std::size_t c);
  Status reduce(VectorView vector, std::size_t c);
  void reduce_block(VectorView vector, Range block);
  Status collect(VectorView vector, std::size_t c);

  void open_lanes(std::string_view name);

  bool in_place(VectorView vector) const { return vector.data == buffer_.data; }
  /// What a sender's word says once it is through with chunk `c` of this operation.
  Iteration position(std::size_t c) const { return begin_ + c + 1; }
  Word word(std::size_t c) const { return make_word(world_.incarnation(), position(c)); }
  std::size_t bytes(std::size_t elements) const { return elements * size_of(buffer_.dtype); }
  std::size_t line_of(int sender, int receiver) const {
    return buffer_bytes_ + slot(sender, receiver) * line;
  }
  std::size_t lane_of(int sender, int receiver) const {
    return slot(sender, receiver) * (line + bytes(shards_.shard));
  }

  const std::size_t buffer_bytes_;
  const Shards shards_;
  const Range own_;  // this worker's shard
  Region region_;
  Region lanes_;
  VectorView buffer_;
  std::vector<Peer> peers_;              // in the order in which they are served
  std::vector<ConstVectorView> inputs_;  // by rank
  std::vector<double> weights_;
  Iteration begin_ = 0;  // chunks of the operations before this one
};

constexpr std::size_t contributed_offset = 0;  // in a sender's line
constexpr std::size_t reduced_offset = sizeof(Word);

std::size_t region_size(int workers, std::size_t bytes) {
  return round_up(bytes, line) + static_cast<std::size_t>(workers - 1) * line;
}
std::size_t lanes_size(int workers, std::size_t bytes) {
  return static_cast<std::size_t>(workers - 1) * (line + Shards::shard_bytes(workers, bytes));
}

TwoShot::TwoShot(const World& world, std::string_view name, std::size_t count, Dtype dtype)
    : Algorithm(world, name),
      buffer_bytes_(round_up(count * size_of(dtype), line)),
      shards_(world.size(), count * size_of(dtype), size_of(dtype)),
      own_(shards_.of(world.rank())),
      region_(world.allocate(name, region_size(world.size(), count * size_of(dtype)))),
      buffer_{region_.data(), count, dtype},
      inputs_(static_cast<std::size_t>(world.size())),
      weights_(static_cast<std::size_t>(world.size()), 1.0 / world.size()) {
  // Everybody begins with its right-hand neighbour, so that nobody is served by all at once.
  for (int i = 1; i < world.size(); ++i) {
    const int peer = (world.rank() + i) % world.size();
    peers_.push_back({.region = attach(peer, name, region_.bytes()),
                      .lanes = {},
                      .input = nullptr,
                      .words = region_,
                      .contributed = line_of(peer, world.rank()) + contributed_offset,
                      .reduced = line_of(peer, world.rank()) + reduced_offset});
    peers_.back().input = peers_.back().region.memory.get() + bytes(own_.begin);
  }
  if (!std::all_of(peers_.begin(), peers_.end(), [](auto& p) { return p.region.mapped(); })) {
    open_lanes(std::string(name) + "/lanes");
  }
}

/// Both ends of a pair of workers either map each other's memory or use lanes.
void TwoShot::open_lanes(std::string_view name) {
  lanes_ = world_.allocate(name, lanes_size(world_.size(), buffer_.bytes()));
  for (Peer& peer : peers_) {
    if (peer.region.mapped()) continue;
    peer.lanes = attach(peer.rank(), name, lanes_.bytes());
    peer.input = lanes_.data() + lane_of(peer.rank(), world_.rank()) + line;
    peer.words = lanes_;
    peer.contributed = lane_of(peer.rank(), world_.rank()) + contributed_offset;
  }
}

Status TwoShot::contribute(VectorView vector, std::size_t c) {
  for (const Peer& peer : peers_) {
    const Range chunk = shards_.of(peer.rank(), c);
    const VectorView part = vector.slice(chunk.begin, chunk.size());
    if (!peer.region.mapped()) {
      const std::size_t own_lane = lane_of(world_.rank(), peer.rank());
      const std::size_t in_shard = bytes(chunk.begin - shards_.of(peer.rank()).begin);
      if (Status s =
              world_.transport().put_signal(peer.lanes, own_lane + line + in_shard, part.data,
                                            part.bytes(), own_lane + contributed_offset, word(c));
          !s) {
        return s;
      }
      continue;
    }
    const std::size_t own_word = line_of(world_.rank(), peer.rank()) + contributed_offset;
    if (!in_place(vector)) {
      kernels::copy(buffer_.slice(chunk.begin, chunk.size()), part);
      peer.region.signal_mapped(own_word, word(c));
    } else if (c == 0) {  // all of it is there
      peer.region.signal_mapped(own_word, word(shards_.chunks - 1));
    }
  }
  return {};
}

Status TwoShot::reduce(VectorView vector, std::size_t c) {
  for (const Peer& peer : peers_) {
    const auto contributed = [&] {
      return iteration_of(peer.words.word(peer.contributed)) >= position(c);
    };
    if (Status s = await(peer.rank(), contributed); !s) return s;
  }
  const Range chunk = shards_.of(world_.rank(), c);
  const std::size_t block = block_bytes / size_of(vector.dtype);
  for (std::size_t begin = chunk.begin; begin < chunk.end; begin += block) {
    reduce_block(vector, {begin, std::min(begin + block, chunk.end)});
  }
  const VectorView mean = vector.slice(chunk.begin, chunk.size());
  for (const Peer& peer : peers_) {
    const std::size_t own_word = line_of(world_.rank(), peer.rank()) + reduced_offset;
    if (peer.region.mapped()) {
      peer.region.signal_mapped(own_word, word(c));
    } else if (Status s = world_.transport().put_signal(peer.region, bytes(chunk.begin), mean.data,
                                                        mean.bytes(), own_word, word(c));
               !s) {
      return s;
    }
  }
  return {};
}

void TwoShot::reduce_block(VectorView vector, Range block) {
  const std::size_t in_shard = bytes(block.begin - own_.begin);
  const VectorView mean = vector.slice(block.begin, block.size());
  inputs_[static_cast<std::size_t>(world_.rank())] = mean;
  for (const Peer& peer : peers_) {
    inputs_[static_cast<std::size_t>(peer.rank())] = {peer.input + in_shard, block.size(),
                                                      vector.dtype};
  }
  kernels::weighted_average(mean, inputs_, weights_);
  for (const Peer& peer : peers_) {
    if (!peer.region.mapped()) continue;
    std::memcpy(peer.region.memory.get() + bytes(block.begin), mean.data, mean.bytes());
  }
}

Status TwoShot::collect(VectorView vector, std::size_t c) {
  // In place the last word of a peer speaks for all its chunks.
  if (in_place(vector) && c + 1 < shards_.chunks) return {};
  for (const Peer& peer : peers_) {
    const auto reduced = [&] { return iteration_of(region_.word(peer.reduced)) >= position(c); };
    if (Status s = await(peer.rank(), reduced); !s) return s;
    if (in_place(vector)) continue;
    const Range chunk = shards_.of(peer.rank(), c);
    kernels::copy(vector.slice(chunk.begin, chunk.size()),
                  buffer_.slice(chunk.begin, chunk.size()));
  }
  return {};
}

Status TwoShot::mean(VectorView vector, Iteration number) {
  begin_ = (number - 1) * shards_.chunks;
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

}  // namespace

std::size_t two_shot_memory(int workers, std::size_t bytes) {
  return region_size(workers, bytes) + lanes_size(workers, bytes);
}

std::unique_ptr<Algorithm> make_two_shot(const World& world, std::string_view name,
                                         std::size_t count, Dtype dtype) {
  return std::make_unique<TwoShot>(world, name, count, dtype);
}

}  // namespace slip::all_reduce
