#include "slipstream/collectives/relay.h"

#include <fmt/format.h>

#include <cstring>

#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

/// A message is the vector and behind it its count.
std::size_t count_offset(std::size_t count, Dtype dtype) {
  constexpr std::size_t unit = sizeof(std::int64_t);
  return (count * size_of(dtype) + unit - 1) / unit * unit;
}

UpdateQueueOptions queue_options(std::size_t count, Dtype dtype) {
  UpdateQueueOptions options;
  options.bytes = count_offset(count, dtype) + sizeof(std::int64_t);
  // A neighbour sends round k + 2 once it has this worker's message of k + 1, which was made from
  // its own of k.
  options.depth = 3;
  return options;
}

}  // namespace

std::size_t Relay::memory(std::size_t neighbours, std::size_t count, Dtype dtype) {
  return UpdateQueue::memory(neighbours, queue_options(count, dtype));
}

Relay::Relay(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
             std::size_t count, Dtype dtype)
    : world_(world),
      neighbours_(neighbourhood.in),
      count_(count),
      dtype_(dtype),
      queue_(world, name, neighbourhood, queue_options(count, dtype)),
      outgoing_(queue_options(count, dtype).bytes),
      held_(neighbours_.size()),
      counts_(neighbours_.size(), 0) {}

Status Relay::send(Iteration round, ConstVectorView own) {
  const VectorView sum{outgoing_.data(), count_, dtype_};
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
    std::memcpy(outgoing_.data() + count_offset(count_, dtype_), &models, sizeof models);
    if (Status s = queue_.enqueue(to, round, outgoing_.data()); !s) return s;
  }
  return {};
}

bool Relay::arrived(Iteration round) const {
  for (std::size_t in = 0; in < neighbours_.size(); ++in) {
    if (!queue_.arrived(in, round)) return false;
  }
  return true;
}

Status Relay::hold(Iteration round, FunctionRef<bool(int sender)> lost) {
  messages_.clear();
  for (std::size_t in = 0; in < neighbours_.size(); ++in) {
    held_[in] = {};
    counts_[in] = 0;
    const int sender = neighbours_[in].peer;
    if (lost(sender)) continue;
    if (Status s = queue_.verify(in, round); !s) return s;
    const std::int64_t count = count_of(in, round);
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
  return {queue_.update(in, round), count_, dtype_};
}

std::int64_t Relay::count_of(std::size_t in, Iteration round) const {
  std::int64_t count = 0;
  std::memcpy(&count, queue_.update(in, round) + count_offset(count_, dtype_), sizeof count);
  return count;
}

}  // namespace slip
