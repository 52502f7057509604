#include "slipstream/collectives/relay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "slipstream/gpu/memory.h"
#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

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
  const std::size_t bytes = queue_options(count, dtype, staleness).bytes;
  if (device == gpu::host) {
    on_host_.resize(bytes);
    outgoing_ = on_host_.data();
  } else {
    on_gpu_ = gpu::allocate(device, bytes);
    outgoing_ = on_gpu_.get();
    counting_.emplace(device);
  }
}

Status Relay::send(Iteration round, ConstVectorView own) {
  if (!first_) first_ = round;
  const VectorView sum{outgoing_, count_, dtype_, device_};
  for (std::size_t to = 0; to < neighbours_.size(); ++to) {
    std::int64_t models = 1;
    inputs_.assign(1, own);
    for (std::size_t from = 0; from < neighbours_.size(); ++from) {
      if (from == to || held_[from].data == nullptr) continue;
      inputs_.push_back(held_[from]);
      models += counts_[from];
    }
    ones_.assign(inputs_.size(), 1.0);
    kernels::weighted_average(sum, inputs_, ones_);
    std::byte* const count = outgoing_ + count_offset(count_, dtype_);
    if (device_ == gpu::host) {
      std::memcpy(count, &models, sizeof models);
    } else if (Status s = gpu::copy(count, &models, sizeof models, gpu::current_stream(device_));
               !s) {
      return s;
    }
    if (Status s = queue_.enqueue(to, round, outgoing_); !s) return s;
  }
  return {};
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

/// It is there, and so a GPU need not do first what is enqueued.
Status Relay::read_count(std::size_t in, Iteration round, std::int64_t* count) const {
  const std::byte* const at = queue_.update(in, round) + count_offset(count_, dtype_);
  if (counting_) return gpu::copy(count, at, sizeof *count, *counting_);
  std::memcpy(count, at, sizeof *count);
  return {};
}

}  // namespace slip
