#include "slipstream/base/copy.h"
#include "slipstream/collectives/partial_all_reduce_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::partial_all_reduce {
namespace {

constexpr std::size_t chunk_bytes = std::size_t{256} << 10;
constexpr std::size_t ahead = 2;
constexpr std::size_t window = 2 * ahead + 1;
// A mean is copied to mapped peers while it is in the first-level cache.
constexpr std::size_t block_bytes = std::size_t{8} << 10;

// Flags of `contributed`: where a sender's peers find its part and put the means.
constexpr unsigned staged_flag = 1;
constexpr unsigned second_buffer_flag = 2;

constexpr std::size_t divide_up(std::size_t n, std::size_t by) { return (n + by - 1) / by; }

}  // namespace

Shards::Shards(std::size_t members, std::size_t count, std::size_t element_bytes)
    : count(count),
      shard(round_up(divide_up(count, members), line / element_bytes)),
      chunk(std::max(chunk_bytes / element_bytes,
                     round_up(divide_up(shard, max_steps), line / element_bytes))),
      chunks(std::max<std::size_t>(1, divide_up(shard, chunk))) {}

TwoShot::TwoShot(Windows& windows, const Layout& layout)
    : windows_(windows),
      layout_(layout),
      inputs_(static_cast<std::size_t>(layout.workers)),
      weights_(static_cast<std::size_t>(layout.workers)) {
  others_.reserve(static_cast<std::size_t>(layout.workers));
}

/// A lane for every shard but one's own, whatever the size of the group.
std::size_t TwoShot::lanes_bytes(const Layout& layout) {
  return layout.vector_bytes() + static_cast<std::size_t>(layout.workers) * line;
}

std::size_t TwoShot::offset(std::size_t c, bool staged) const {
  return bytes((staged ? c % window : c) * shards_.chunk);
}

VectorView TwoShot::buffer(unsigned which) const {
  return {windows_.region().data() + layout_.buffer(which), layout_.count, layout_.dtype};
}

VectorView TwoShot::staged_chunk(std::size_t place, std::size_t c) const {
  const std::size_t first = shards_.of(place).begin + c % window * shards_.chunk;
  return buffer(current_).slice(first, shards_.of(place, c).size());
}

Status TwoShot::announce(const Operation& operation) {
  for (const Member& member : operation.others) {
    const Peer& peer = *member.peer;
    if (peer.mapped() || peer.ready_for == operation.sequence) continue;
    if (Status s = windows_.open_lanes(lanes_bytes(layout_)); !s) return s;
    const Iteration ready = progress(operation.sequence, 0);
    if (Status s = windows_.signal(peer, Sign::ready, ready); !s) return s;
  }
  return {};
}

Status TwoShot::mean(const Operation& operation, VectorView vector, unsigned current) {
  begin(operation, vector, current);
  Status status = run();
  if (!status) restore();
  return status;
}

void TwoShot::begin(const Operation& operation, VectorView vector, unsigned current) {
  sequence_ = operation.sequence;
  place_ = operation.place;
  shards_ = Shards(operation.size(), layout_.count, size_of(layout_.dtype));
  own_ = shards_.of(place_);
  vector_ = vector;
  current_ = current;
  staged_ = vector.data != buffer(current).data;
  kept_ = 0;
  const std::size_t lane = bytes(shards_.shard);
  others_.clear();
  for (const auto& [peer, place] : operation.others) {
    others_.push_back({.peer = peer,
                       .place = place,
                       .own_lane = (place_ < place ? place_ : place_ - 1) * lane,
                       .lane = (place < place_ ? place : place - 1) * lane});
  }
  std::fill_n(weights_.begin(), operation.size(), 1.0 / static_cast<double>(operation.size()));
}

Status TwoShot::run() {
  for (std::size_t step = 0; step < shards_.chunks + 2 * ahead; ++step) {
    if (step < shards_.chunks) {
      if (Status s = contribute(step); !s) return s;
    }
    if (step >= ahead && step - ahead < shards_.chunks) {
      if (Status s = reduce(step - ahead); !s) return s;
    }
    if (step >= 2 * ahead) {
      if (Status s = collect(step - 2 * ahead); !s) return s;
    }
  }
  return complete();
}

unsigned TwoShot::flags() const {
  return (staged_ ? staged_flag : 0) | (current_ != 0 ? second_buffer_flag : 0);
}

Status TwoShot::contribute(std::size_t c) {
  for (Party& party : others_) {
    const Range chunk = shards_.of(party.place, c);
    if (Status s = offer(party, vector_.slice(chunk.begin, chunk.size()), c); !s) return s;
  }
  if (staged_ && !in_place()) keep(c);
  return {};
}

Status TwoShot::offer(Party& party, VectorView part, std::size_t c) {
  Peer& peer = *party.peer;
  const Iteration through_this = progress(sequence_, c + 1, flags());
  if (peer.mapped()) {
    if (staged_) {
      kernels::copy(staged_chunk(party.place, c), part);
      return windows_.signal(peer, Sign::contributed, through_this);
    }
    if (c > 0) return {};  // said all of it at once
    return windows_.signal(peer, Sign::contributed, progress(sequence_, shards_.chunks, flags()));
  }
  if (c == 0 && peer.ready_for != sequence_) {
    if (Status s = windows_.await(peer, Sign::ready, progress(sequence_, 0)); !s) return s;
    const Word ready = windows_.word(peer, Sign::ready);
    if (Status s = windows_.check_sequence(peer, ready, sequence_); !s) return s;
    if (Status s = windows_.find_lanes(peer); !s) return s;
  }
  return windows_.put_to_lanes(peer, party.own_lane + offset(c, false), part.data, part.bytes(),
                               through_this);
}

Status TwoShot::reduce(std::size_t c) {
  for (Party& party : others_) {
    if (Status s = find(party, c); !s) return s;
  }
  const Range chunk = shards_.of(place_, c);
  const std::size_t block = block_bytes / size_of(layout_.dtype);
  for (std::size_t begin = chunk.begin; begin < chunk.end; begin += block) {
    reduce_block({begin, std::min(begin + block, chunk.end)}, bytes(begin - chunk.begin));
  }
  const VectorView mean = result().slice(chunk.begin, chunk.size());
  for (const Party& party : others_) {
    // To mapped peers it has been copied block by block.
    const std::size_t left = party.peer->mapped() ? 0 : mean.bytes();
    if (Status s = windows_.put(*party.peer, party.output, mean.data, left, Sign::reduced,
                                progress(sequence_, c + 1));
        !s) {
      return s;
    }
  }
  return {};
}

/// Until the member has contributed chunk `c`: where from, and where its mean goes.
Status TwoShot::find(Party& party, std::size_t c) {
  const Peer& peer = *party.peer;
  const bool mapped = peer.mapped();
  const auto said = [&] {
    return mapped ? windows_.word(peer, Sign::contributed) : windows_.lane_word(peer);
  };
  const Iteration wanted = progress(sequence_, c + 1);
  if (Status s = windows_.await(peer, [&] { return reached(said(), wanted); }); !s) return s;
  const Word word = said();
  if (Status s = windows_.check_sequence(peer, word, sequence_); !s) return s;
  const bool staged = (flags_of(word) & staged_flag) != 0;
  const unsigned from = (flags_of(word) & second_buffer_flag) != 0 ? layout_.buffers - 1 : 0;
  const unsigned to = staged || in_place() ? from : 1 - from;
  const std::size_t shard = bytes(own_.begin);
  party.input = mapped ? peer.region.memory.get() + layout_.buffer(from) + shard + offset(c, staged)
                       : windows_.lanes() + party.lane + offset(c, false);
  party.output = layout_.buffer(to) + shard + offset(c, staged);
  return {};
}

/// `in_chunk`: where the block begins, in bytes.
void TwoShot::reduce_block(Range block, std::size_t in_chunk) {
  inputs_[place_] = vector_.slice(block.begin, block.size());
  for (const Party& party : others_) {
    inputs_[party.place] = {party.input + in_chunk, block.size(), layout_.dtype};
  }
  const VectorView mean = result().slice(block.begin, block.size());
  const std::size_t n = others_.size() + 1;
  kernels::weighted_average(mean, {inputs_.data(), n}, {weights_.data(), n});
  for (const Party& party : others_) {
    if (!party.peer->mapped()) continue;
    copy_bytes(party.peer->region.memory.get() + party.output + in_chunk, mean.data, mean.bytes());
  }
}

Status TwoShot::collect(std::size_t c) {
  for (const Party& party : others_) {
    if (Status s = windows_.await(*party.peer, Sign::reduced, progress(sequence_, c + 1)); !s) {
      return s;
    }
    if (!staged_) continue;
    const Range chunk = shards_.of(party.place, c);
    kernels::copy(vector_.slice(chunk.begin, chunk.size()), staged_chunk(party.place, c));
  }
  return {};
}

Status TwoShot::complete() {
  for (const Party& party : others_) {
    if (Status s = windows_.await_local_completion(*party.peer); !s) return s;
    if (Status s = windows_.gave_up(*party.peer); !s) return s;
    if (!party.peer->mapped()) party.peer->ready_for = sequence_ + 1;
  }
  windows_.world().counters().bytes_sent.add(vector_.bytes() - bytes(own_.size()) +
                                             others_.size() * bytes(own_.size()));
  return {};
}

/// What chunk `c` of every shard was, in the buffer that no peer touches meanwhile.
void TwoShot::keep(std::size_t c) {
  for (std::size_t place = 0; place <= others_.size(); ++place) {
    const Range chunk = shards_.of(place, c);
    kernels::copy(buffer(1 - current_).slice(chunk.begin, chunk.size()),
                  vector_.slice(chunk.begin, chunk.size()));
  }
  kept_ = c + 1;
}

void TwoShot::restore() {
  for (std::size_t c = 0; c < kept_; ++c) {
    for (std::size_t place = 0; place <= others_.size(); ++place) {
      const Range chunk = shards_.of(place, c);
      kernels::copy(vector_.slice(chunk.begin, chunk.size()),
                    buffer(1 - current_).slice(chunk.begin, chunk.size()));
    }
  }
}

}  // namespace slip::partial_all_reduce
