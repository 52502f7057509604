#include "slipstream/trainer/gossip.h"

#include <algorithm>
#include <numeric>

#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

/// In lockstep a sender is at most one round ahead of a receiver, so two slots are enough.
constexpr int max_gap = 1;

UpdateQueueOptions queue_options(std::size_t count, Dtype dtype, int device = gpu::host) {
  UpdateQueueOptions options;
  options.bytes = count * size_of(dtype);
  options.depth = max_gap + 1;
  options.device = device;
  return options;
}

}  // namespace

Gossip::Gossip(const Run& run, std::string_view name, const Neighbourhood& neighbourhood,
               std::size_t count, Iteration rounds_per_iteration)
    : run_(run),
      in_(neighbourhood.in),
      out_count_(neighbourhood.out.size()),
      count_(count),
      rounds_per_iteration_(rounds_per_iteration),
      queue_(run.world, std::string(name) + "/vectors", neighbourhood,
             queue_options(count, run.x.dtype, run.x.device)),
      tokens_(run.world, std::string(name) + "/tokens", neighbourhood, max_gap) {}

std::size_t Gossip::memory(std::size_t in_neighbours, std::size_t count, Dtype dtype) {
  return UpdateQueue::memory(in_neighbours, queue_options(count, dtype));
}

Status Gossip::average(VectorView vector, const MixingRow& weights) {
  if (Status s = enter(); !s) return s;
  Status status;
  run_.timed(SpanKind::send, [&] {
    for (std::size_t out = 0; status && out < out_count_; ++out) status = send(out, vector);
  });
  if (!status) return status;
  if (Status s = receive(0, in_.size()); !s) return s;
  for (std::size_t in = 0; in < in_.size(); ++in) add(in, weights.in[in]);
  return reduce(vector, weights.own);
}

Status Gossip::average(VectorView vector, std::size_t out, std::size_t in) {
  if (Status s = enter(); !s) return s;
  Status status;
  run_.timed(SpanKind::send, [&] { status = send(out, vector); });
  if (!status) return status;
  if (Status s = receive(in, in + 1); !s) return s;
  add(in, 0.5);
  return reduce(vector, 0.5);
}

/// The vectors of the round before have been read, so its senders may write again.
Status Gossip::enter() {
  round_ = round_ ? *round_ + 1 : 0;
  const auto permitted = [&] { return tokens_.may_enter(*round_); };
  if (Status s = run_.wait(permitted, "tokens from its receivers"); !s) return s;
  if (*round_ > 0) {
    const Iteration lead = tokens_.lead(*round_) + rounds_per_iteration_ - 1;
    run_.world.counters().max_gap_seen.raise_to(lead / rounds_per_iteration_);
  }
  inputs_.assign(1, {});
  weights_.assign(1, 0.0);
  return tokens_.announce(*round_);
}

Status Gossip::send(std::size_t out, VectorView vector) {
  return queue_.enqueue(out, *round_, static_cast<const std::byte*>(vector.data));
}

/// Waits for what in-neighbours [first, end) send.
Status Gossip::receive(std::size_t first, std::size_t end) {
  const auto here = [&] {
    for (std::size_t in = first; in < end; ++in) {
      if (!queue_.arrived(in, *round_)) return false;
    }
    return true;
  };
  return run_.wait(here, "what its neighbours send");
}

void Gossip::add(std::size_t in, double weight) {
  if (run_.heterogeneity.drops(run_.world.rank(), in_[in].peer, *round_)) return;
  inputs_.push_back({queue_.update(in, *round_), count_, run_.x.dtype, run_.x.device});
  weights_.push_back(weight);
  run_.world.counters().updates_used.add(1);
}

Status Gossip::reduce(VectorView vector, double own) {
  for (std::size_t in = 0; in < in_.size(); ++in) {
    if (!queue_.arrived(in, *round_)) continue;  // not of this round
    if (Status s = queue_.verify(in, *round_); !s) return s;
  }
  inputs_[0] = vector;
  weights_[0] = own;
  if (run_.heterogeneity.drops_any()) {
    const double sum = std::accumulate(weights_.begin(), weights_.end(), 0.0);
    for (double& weight : weights_) weight /= sum;
  }
  run_.timed(SpanKind::apply, [&] { kernels::weighted_average(vector, inputs_, weights_); });
  return {};
}

}  // namespace slip
