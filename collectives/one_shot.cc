#include <cstring>
#include <vector>

#include "slipstream/collectives/all_reduce_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::all_reduce {
namespace {

/// Everybody sends everything to everybody. A lane is the payload and right behind it its word, so
/// that a small vector is a single cache line. Each sender has two lanes, used in turn.
class OneShot final : public Algorithm {
 public:
  OneShot(const World& world, std::string_view name, std::size_t count, Dtype dtype);

  VectorView buffer() const override { return buffer_; }
  Status mean(VectorView vector, Iteration number) override;

 private:
  std::size_t lane(int sender, int receiver, std::size_t half) const {
    return buffer_bytes_ + (slot(sender, receiver) * 2 + half) * lane_bytes_;
  }
  Status send(const RemoteRegion& peer, std::size_t at, VectorView vector, Word word);

  const std::size_t word_offset_;  // in a lane
  const std::size_t lane_bytes_;
  const std::size_t buffer_bytes_;
  Region region_;  // the buffer, and then the lanes by sender
  VectorView buffer_;
  std::vector<RemoteRegion> peers_;         // in the order in which they are served
  std::vector<ConstVectorView> inputs_[2];  // by rank, for either half
  std::vector<double> weights_;
};

constexpr std::size_t payload_bytes(std::size_t bytes) { return round_up(bytes, sizeof(Word)); }
constexpr std::size_t lane_size(std::size_t bytes) {
  return round_up(payload_bytes(bytes) + sizeof(Word), line);
}

OneShot::OneShot(const World& world, std::string_view name, std::size_t count, Dtype dtype)
    : Algorithm(world, name),
      word_offset_(payload_bytes(count * size_of(dtype))),
      lane_bytes_(lane_size(count * size_of(dtype))),
      buffer_bytes_(round_up(count * size_of(dtype), line)),
      region_(world.allocate(name, one_shot_memory(world.size(), count * size_of(dtype)))),
      buffer_{region_.data(), count, dtype},
      weights_(static_cast<std::size_t>(world.size()), 1.0 / world.size()) {
  // Everybody begins with its right-hand neighbour, so that nobody is served by all at once.
  for (int i = 1; i < world.size(); ++i) {
    const int peer = (world.rank() + i) % world.size();
    peers_.push_back(attach(peer, name, region_.bytes()));
  }
  for (const std::size_t half : {0, 1}) {
    for (int sender = 0; sender < world.size(); ++sender) {
      if (sender == world.rank()) {
        inputs_[half].emplace_back();
      } else {
        inputs_[half].push_back({region_.data() + lane(sender, world.rank(), half), count, dtype});
      }
    }
  }
}

Status OneShot::send(const RemoteRegion& peer, std::size_t at, VectorView vector, Word word) {
  if (!peer.mapped()) {
    return world_.transport().put_signal(peer, at, vector.data, vector.bytes(), at + word_offset_,
                                         word);
  }
  if (vector.count > 0) std::memcpy(peer.memory.get() + at, vector.data, vector.bytes());
  peer.signal_mapped(at + word_offset_, word);
  return {};
}

Status OneShot::mean(VectorView vector, Iteration number) {
  if (peers_.empty()) return {};  // the mean of one
  const std::size_t half = number % 2;
  const Word word = make_word(world_.incarnation(), number);
  for (const RemoteRegion& peer : peers_) {
    if (Status s = send(peer, lane(world_.rank(), peer.peer, half), vector, word); !s) return s;
  }
  for (const RemoteRegion& peer : peers_) {
    const std::size_t at = lane(peer.peer, world_.rank(), half) + word_offset_;
    const auto arrived = [&] { return iteration_of(region_.word(at)) == number; };
    if (Status s = await(peer.peer, arrived); !s) return s;
    if (Status s = await_local_completion(peer); !s) return s;
  }
  inputs_[half][static_cast<std::size_t>(world_.rank())] = vector;
  kernels::weighted_average(vector, inputs_[half], weights_);
  world_.counters().bytes_sent.add(peers_.size() * vector.bytes());
  return {};
}

}  // namespace

std::size_t one_shot_memory(int workers, std::size_t bytes) {
  return round_up(bytes, line) + static_cast<std::size_t>(workers - 1) * 2 * lane_size(bytes);
}

std::unique_ptr<Algorithm> make_one_shot(const World& world, std::string_view name,
                                         std::size_t count, Dtype dtype) {
  return std::make_unique<OneShot>(world, name, count, dtype);
}

}  // namespace slip::all_reduce
