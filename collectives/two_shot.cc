#include "slipstream/collectives/partial_all_reduce_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::partial_all_reduce {

TwoShot::TwoShot(Windows& windows, const Layout& layout, Staging& staging, Packing& packing)
    : windows_(windows),
      layout_(layout),
      staging_(staging),
      packing_(packing),
      inputs_(static_cast<std::size_t>(layout.workers)),
      weights_(static_cast<std::size_t>(layout.workers)) {
  others_.reserve(static_cast<std::size_t>(layout.workers));
  copies_.reserve(static_cast<std::size_t>(layout.workers));
}

Status TwoShot::announce(const Operation& operation) {
  for (const Member& member : operation.others) {
    if (member.peer->mapped()) continue;
    if (Status s = windows_.open_lanes(*member.peer, operation.sequence, layout_.lanes_bytes());
        !s) {
      return s;
    }
  }
  return {};
}

Status TwoShot::mean(const Operation& operation, VectorView vector, unsigned current) {
  begin(operation, vector, current);
  Status status = run();
  if (!status) staging_.restore();
  return status;
}

void TwoShot::begin(const Operation& operation, VectorView vector, unsigned current) {
  const std::size_t element_bytes = size_of(layout_.dtype);
  const Shards shards(operation.size(), layout_.count, element_bytes, chunk_bytes / element_bytes);
  staging_.begin(shards, vector, current);
  sequence_ = operation.sequence;
  place_ = operation.place;
  rounds_ = false;
  const std::size_t lane = bytes(shards.shard);
  others_.clear();
  for (const auto& [peer, place] : operation.others) {
    rounds_ = rounds_ || !peer->mapped();
    others_.push_back({.peer = peer,
                       .place = place,
                       .own_lane = (place_ < place ? place_ : place_ - 1) * lane,
                       .lane = (place < place_ ? place : place - 1) * lane});
  }
  std::fill_n(weights_.begin(), operation.size(), 1.0 / static_cast<double>(operation.size()));
}

Status TwoShot::run() {
  const std::size_t chunks = shards().chunks;
  for (std::size_t step = 0; step < chunks + 2 * ahead; ++step) {
    if (step < chunks) {
      if (Status s = contribute(step); !s) return s;
    }
    if (step >= ahead && step - ahead < chunks) {
      if (Status s = reduce(step - ahead); !s) return s;
    }
    if (step >= 2 * ahead) {
      if (Status s = collect(step - 2 * ahead); !s) return s;
    }
  }
  return complete();
}

Status TwoShot::contribute(std::size_t c) {
  for (const Party& party : others_) {
    if (Status s = offer(party, c); !s) return s;
  }
  staging_.keep(c);
  return {};
}

Status TwoShot::offer(const Party& party, std::size_t c) {
  Peer& peer = *party.peer;
  if (peer.mapped()) {
    staging_.stage(party.place, c);
    const std::size_t readable = staging_.readable(c);
    if (readable == 0) return {};
    return windows_.signal(peer, Sign::contributed,
                           progress(sequence_, readable, staging_.flags()));
  }
  if (c == 0) {
    if (Status s = windows_.find_lanes(peer, sequence_, layout_.lanes_bytes()); !s) return s;
  }
  const VectorView part = staging_.part(party.place, c);
  const void* packed = packing_.pack(part, shards().of(party.place, c).begin);
  const std::size_t at = party.own_lane + bytes(c * shards().chunk) + packing_.offset(part.count);
  return windows_.put_to_lanes(peer, at, packed, packing_.bytes(part.count),
                               progress(sequence_, c + 1, staging_.flags()));
}

Status TwoShot::reduce(std::size_t c) {
  for (Party& party : others_) {
    if (Status s = find(party, c); !s) return s;
  }
  average(c);
  const VectorView mean = result(c);
  const void* packed = rounds_ ? packing_.pack(mean, shards().of(place_, c).begin) : nullptr;
  for (const Party& party : others_) {
    // Mapped peers have it.
    const std::size_t left = party.peer->mapped() ? 0 : packing_.bytes(mean.count);
    if (Status s = windows_.put(*party.peer, party.output + packing_.offset(mean.count), packed,
                                left, Sign::reduced, progress(sequence_, c + 1));
        !s) {
      return s;
    }
  }
  return {};
}

/// Until the member has contributed chunk `c`: where from, and where its mean goes.
Status TwoShot::find(Party& party, std::size_t c) {
  const Peer& peer = *party.peer;
  unsigned flags = 0;
  if (Status s = windows_.await_contribution(peer, !peer.mapped(), sequence_, c + 1, &flags); !s)
    return s;
  if (peer.mapped()) {
    party.input = peer.region.memory.get() + staging_.source(flags, place_, c);
  } else {
    std::byte* lane = windows_.lanes() + party.lane + bytes(c * shards().chunk);
    packing_.unpack({lane, shards().of(place_, c).size(), layout_.dtype});
    party.input = lane;
  }
  party.output = staging_.target(flags, place_, c);
  return {};
}

/// Chunk `c` of this worker's shard, here and at mapped peers.
void TwoShot::average(std::size_t c) {
  const VectorView mean = result(c);
  inputs_[place_] = staging_.part(place_, c);
  copies_.clear();
  for (const Party& party : others_) {
    inputs_[party.place] = {party.input, mean.count, mean.dtype};
    if (!party.peer->mapped()) continue;
    copies_.push_back({party.peer->region.memory.get() + party.output, mean.count, mean.dtype});
  }
  const std::size_t n = others_.size() + 1;
  if (!rounds_ || !packing_.is_lossy()) {
    kernels::weighted_average(mean, {inputs_.data(), n}, {weights_.data(), n}, copies_);
    return;
  }
  // Everybody has the same mean, whichever way it comes.
  kernels::weighted_average(mean, {inputs_.data(), n}, {weights_.data(), n});
  packing_.round(mean, shards().of(place_, c).begin);
  for (const VectorView& copy : copies_) kernels::copy(copy, mean);
}

Status TwoShot::collect(std::size_t c) {
  for (const Party& party : others_) {
    if (Status s = windows_.await(*party.peer, Sign::reduced, progress(sequence_, c + 1)); !s) {
      return s;
    }
    const VectorView mean = staging_.landing(party.place, c);
    if (!party.peer->mapped()) packing_.unpack(mean);
    if (staging_.staged()) kernels::copy(staging_.part(party.place, c), mean);
  }
  return {};
}

Status TwoShot::complete() {
  for (const Party& party : others_) {
    if (Status s = windows_.await_local_completion(*party.peer); !s) return s;
    if (Status s = windows_.gave_up(*party.peer); !s) return s;
    if (!party.peer->mapped()) party.peer->ready_for = sequence_ + 1;
  }
  const std::size_t own = shards().of(place_).size();
  windows_.world().counters().bytes_sent.add(
      packing_.bytes(layout_.count - own + others_.size() * own));
  return {};
}

}  // namespace slip::partial_all_reduce
