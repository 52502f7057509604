#include "slipstream/collectives/relay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "slipstream/gpu/memory.h"
#include "slipstream/kernels/memory_internal.h"

namespace slip {
namespace {

/// The messages to all neighbours grow side by side: small enough for the nearer caches.
constexpr std::size_t chunk_bytes = std::size_t{1} << 20;

/// A message is the vector and behind it its count.
std::size_t count_offset(std::size_t count, Dtype dtype) {
  constexpr std::size_t unit = sizeof(std::int64_t);
  return (count * size_of(dtype) + unit - 1) / unit * unit;
}

UpdateQueueOptions queue_options(std::size_t count, Dtype dtype, int staleness,
                                 int device = gpu::host) {
  UpdateQueueOptions options;
  options.device = device;
  options.bytes = count_offset(count, dtype) + sizeof(std::int64_t);
  options.chunk_bytes = chunk_bytes;
  // A neighbour sends round k + 2 + 2 s once it has this worker's message of k + 1 + s, which may
  // have been made from its own of k.
  options.depth = 3 + 2 * staleness;
  return options;
}

}  // namespace

std::size_t Relay::memory(std::size_t neighbours, std::size_t count, Dtype dtype, int staleness) {
  return UpdateQueue::memory(neighbours, queue_options(count, dtype, staleness));
}

Relay::Relay(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
             std::size_t count, Dtype dtype, int staleness, int device)
    : world_(world),
      neighbours_(neighbourhood.in),
      count_(count),
      dtype_(dtype),
      staleness_(static_cast<Iteration>(staleness)),
      device_(device),
      queue_(world, name, neighbourhood, queue_options(count, dtype, staleness, device)),
      held_(neighbours_.size()),
      counts_(neighbours_.size(), 0) {
  for (std::size_t to = 0; to < neighbours_.size(); ++to) {
    outgoing_.push_back(allocate_vector(device, queue_.chunk_size(0)));
  }
  if (device != gpu::host) counting_.emplace(device);
}

Status Relay::send(Iteration round, ConstVectorView own, const kernels::RelayAverage* average) {
  if (!first_) first_ = round;
  const std::int64_t all = models();
  const std::size_t most = chunk_bytes / size_of(dtype_);
  for (std::size_t c = 0; c < queue_.chunks(); ++c) {
    const std::size_t first = std::min(c * most, count_), n = std::min(most, count_ - first);
    add_up(own, first, n, average);
    for (std::size_t to = 0; to < neighbours_.size(); ++to) {
      std::byte* chunk = outgoing_[to].get();
      if (c + 1 == queue_.chunks()) {
        std::byte* const count = chunk + count_offset(count_, dtype_) - c * chunk_bytes;
        if (Status s = write_count(count, all - counts_[to]); !s) return s;
      }
      if (Status s = queue_.enqueue_chunk(to, round, c, chunk); !s) return s;
    }
  }
  return {};
}

/// Elements [first, first + n) of all messages and of the average.
void Relay::add_up(ConstVectorView own, std::size_t first, std::size_t n,
                   const kernels::RelayAverage* average) {
  sums_.clear();
  pieces_.clear();
  for (const auto& chunk : outgoing_) sums_.push_back({chunk.get(), n, dtype_, device_});
  for (const ConstVectorView& held : held_) {
    pieces_.push_back(held.data == nullptr ? held : held.slice(first, n));
  }
  if (average == nullptr) return kernels::relay(sums_, own.slice(first, n), pieces_);
  kernels::RelayAverage piece = *average;
  piece.out = average->out.slice(first, n);
  if (piece.rest.data != nullptr) piece.rest = average->rest.slice(first, n);
  kernels::relay(sums_, own.slice(first, n), pieces_, &piece);
}

/// The last of the `rounds` rounds up to `round` whose message of that neighbour is here.
std::optional<Iteration> Relay::newest(std::size_t in, Iteration round, Iteration rounds) const {
  for (Iteration age = 0; age < rounds && age <= round; ++age) {
    if (queue_.arrived(in, round - age)) return round - age;
  }
  return std::nullopt;
}

bool Relay::arrived(Iteration round) const {
  if (first_ && round < *first_ + staleness_) return true;
  for (std::size_t in = 0; in < neighbours_.size(); ++in) {
    if (!newest(in, round, staleness_ + 1)) return false;
  }
  return true;
}

Iteration Relay::behind(Iteration round) const {
  const Iteration rounds = 2 * staleness_ + 3;
  Iteration most = 0;
  for (std::size_t in = 0; in < neighbours_.size(); ++in) {
    most = std::max(most, round - newest(in, round, rounds).value_or(*first_));
  }
  return most;
}

Status Relay::hold(Iteration latest, FunctionRef<bool(int sender, Iteration round)> lost) {
  messages_.clear();
  for (std::size_t in = 0; in < neighbours_.size(); ++in) {
    held_[in] = {};
    counts_[in] = 0;
    const int sender = neighbours_[in].peer;
    const std::optional<Iteration> found = newest(in, latest, staleness_ + 1);
    if (!found || lost(sender, *found)) continue;
    const Iteration round = *found;
    if (Status s = queue_.verify(in, round); !s) return s;
    std::int64_t count = 0;
    if (Status s = read_count(in, round, &count); !s) return s;
    if (count < 1 || count >= world_.size()) {
      return {
          Code::bad_data,
          fmt::format("rank {}: the message of round {} from rank {} claims to hold {} models of "
                      "a world of {}",
                      world_.rank(), round, sender, count, world_.size()),
          sender};
    }
    held_[in] = vector(in, round);
    counts_[in] = count;
    messages_.push_back(held_[in]);
    world_.counters().updates_used.add(1);
  }
  return {};
}

std::int64_t Relay::models() const {
  std::int64_t models = 1;
  for (const std::int64_t count : counts_) models += count;
  return models;
}

ConstVectorView Relay::vector(std::size_t in, Iteration round) const {
  return {queue_.update(in, round), count_, dtype_, device_};
}

Status Relay::write_count(std::byte* at, std::int64_t count) const {
  if (counting_) return gpu::copy(at, &count, sizeof count, gpu::current_stream(device_));
  std::memcpy(at, &count, sizeof count);
  return {};
}

/// It is there, and so a GPU need not do first what is enqueued.
Status Relay::read_count(std::size_t in, Iteration round, std::int64_t* count) const {
  const std::byte* const at = queue_.update(in, round) + count_offset(count_, dtype_);
  if (counting_) return gpu::copy(count, at, sizeof *count, *counting_);
  std::memcpy(count, at, sizeof *count);
  return {};
}

}  // namespace slip
