#include <algorithm>

#include "slipstream/collectives/partial_all_reduce_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::partial_all_reduce {
namespace {

// A row is cut into so many chunks that its stages overlap, but not into small ones.
constexpr std::size_t rows = 8;
constexpr std::size_t least_chunk_bytes = std::size_t{16} << 10;

constexpr std::size_t without(std::size_t place, std::size_t own) {
  return place < own ? place : place - 1;
}

}  // namespace

Hierarchical::Hierarchical(Windows& windows, const Layout& layout, Staging& staging,
                           Packing& packing)
    : windows_(windows),
      layout_(layout),
      staging_(staging),
      packing_(packing),
      inputs_(static_cast<std::size_t>(layout.workers)),
      weights_(static_cast<std::size_t>(layout.workers)) {}

std::size_t Hierarchical::chunk_of(const Layout& layout, const GroupShape& shape) {
  const std::size_t element = size_of(layout.dtype);
  const auto hosts = static_cast<std::size_t>(shape.hosts);
  const auto per_host = static_cast<std::size_t>(shape.per_host);
  const std::size_t shard =
      round_up(std::max<std::size_t>(1, divide_up(layout.count, hosts)) * element, line);
  const std::size_t chunk = std::min(
      shard, std::clamp(round_up(divide_up(shard, rows), line), least_chunk_bytes, chunk_bytes));
  const std::size_t lanes = (per_host - 1) * hosts + hosts - 1;  // with a chunk of a row each
  const std::size_t in_lane = std::min(divide_up(shard, chunk), window);
  if (lanes * in_lane * chunk <= layout.lanes_bytes()) return chunk / element;
  const std::size_t smaller = layout.lanes_bytes() / (lanes * window) / line * line;
  return smaller > 0 && divide_up(shard, smaller) <= max_steps ? smaller / element : 0;
}

/// The leaders of its rails take turns, as far as they are members; else it is the first that is.
int Hierarchical::leader_of(int host, int first, const Group& group) const {
  const auto leaders = windows_.world().topology().leaders(host);
  const auto is_member = [&](const Topology::Leader& leader) {
    return std::binary_search(group.members.begin(), group.members.end(), leader.rank);
  };
  const auto candidates =
      static_cast<std::uint64_t>(std::count_if(leaders.begin(), leaders.end(), is_member));
  if (candidates == 0) return first;
  std::uint64_t skip = group.sequence % candidates;
  for (const Topology::Leader& leader : leaders) {
    if (is_member(leader) && skip-- == 0) return leader.rank;
  }
  return first;
}

Status Hierarchical::meet(int rank, std::size_t place, std::size_t own_lane, std::size_t lane,
                          std::vector<Party>* parties) {
  Peer* peer = nullptr;
  if (Status s = windows_.meet(rank, &peer); !s) return s;
  parties->push_back({peer, place, own_lane, lane});
  return {};
}

Status Hierarchical::prepare(const Group& group, const GroupShape& shape) {
  const World& world = windows_.world();
  sequence_ = group.sequence;
  weight_ = 1.0 / static_cast<double>(group.members.size());
  shards_ = Shards(static_cast<std::size_t>(shape.hosts), layout_.count, size_of(layout_.dtype),
                   chunk_of(layout_, shape));
  rows_in_lane_ = std::min(shards_.chunks, window);
  hosts_.clear();
  members_.clear();
  leaders_.clear();
  for (const int rank : group.members) {
    const int number = world.host_of(rank);
    // Ranks of one host mostly follow each other.
    const auto known = std::find_if(hosts_.rbegin(), hosts_.rend(),
                                    [number](const Host& host) { return host.number == number; });
    if (known == hosts_.rend()) hosts_.push_back({number, leader_of(number, rank, group)});
  }
  const int own = world.host_of(world.rank());
  host_ = static_cast<std::size_t>(
      std::find_if(hosts_.begin(), hosts_.end(), [own](const Host& h) { return h.number == own; }) -
      hosts_.begin());
  const int leader = hosts_[host_].leader;
  leads_ = leader == world.rank();

  std::size_t members = 0;
  std::size_t leaders_place = 0;
  for (const int rank : group.members) {
    if (world.host_of(rank) != own) continue;
    if (rank == leader) leaders_place = members;
    if (rank == world.rank()) place_ = members;
    ++members;
  }
  const std::size_t chunk = bytes(shards_.chunk);
  const std::size_t leaders_lane = rows_in_lane_ * chunk;
  const auto members_lane = [&](std::size_t place) {
    return leaders_lane * (hosts_.size() - 1 + without(place, leaders_place) * hosts_.size());
  };
  if (!leads_) return meet(leader, leaders_place, members_lane(place_), 0, &members_);
  std::size_t place = 0;
  for (const int rank : group.members) {
    if (world.host_of(rank) != own) continue;
    if (rank != world.rank()) {
      if (Status s = meet(rank, place, 0, members_lane(place), &members_); !s) return s;
    }
    ++place;
  }
  // Everybody begins with its right-hand neighbour, so that nobody is served by all at once.
  for (std::size_t i = 1; i < hosts_.size(); ++i) {
    const std::size_t other = (host_ + i) % hosts_.size();
    if (Status s = meet(hosts_[other].leader, other, leaders_lane * without(host_, other),
                        leaders_lane * without(other, host_), &leaders_);
        !s) {
      return s;
    }
  }
  return {};
}

Status Hierarchical::announce() {
  if (!leads_) return {};
  for (const auto* parties : {&leaders_, &members_}) {
    for (const Party& party : *parties) {
      if (parties == &members_ && party.peer->mapped()) continue;
      if (Status s = windows_.open_lanes(*party.peer, sequence_, layout_.lanes_bytes()); !s) {
        return s;
      }
    }
  }
  return {};
}

Status Hierarchical::mean(VectorView vector, unsigned current) {
  staging_.begin(shards_, vector, current);
  Status status = run();
  if (!status) staging_.restore();
  return status;
}

Status Hierarchical::run() {
  using Stage = Status (Hierarchical::*)(std::size_t);
  const auto at = [&](Stage stage, std::size_t step, std::size_t behind) {
    const bool due = step >= behind && step - behind < shards().chunks;
    return due ? (this->*stage)(step - behind) : Status();
  };
  for (std::size_t step = 0; step < shards().chunks + 2 * ahead; ++step) {
    if (leads_) {
      if (Status s = at(&Hierarchical::gather, step, 0); !s) return s;
      if (Status s = at(&Hierarchical::reduce, step, ahead); !s) return s;
      if (Status s = at(&Hierarchical::hand_out, step, 2 * ahead); !s) return s;
    } else {
      if (Status s = at(&Hierarchical::contribute, step, 0); !s) return s;
      if (Status s = at(&Hierarchical::collect, step, 2 * ahead); !s) return s;
    }
  }
  return complete();
}

Status Hierarchical::gather(std::size_t row) {
  if (staging_.staged() && row >= window) {
    for (const auto* parties : {&leaders_, &members_}) {
      for (const Party& party : *parties) {
        if (Status s = windows_.await_local_completion(*party.peer); !s) return s;
      }
    }
  }
  for (Party& party : members_) {
    if (Status s = windows_.await_contribution(*party.peer, !party.peer->mapped(), sequence_,
                                               row + 1, &party.flags);
        !s) {
      return s;
    }
  }
  const std::size_t n = members_.size() + 1;
  std::fill_n(weights_.begin(), n, weight_);
  for (std::size_t shard = 0; shard < hosts_.size(); ++shard) {
    const VectorView sum = staging_.landing(shard, row);
    inputs_[place_] = staging_.part(shard, row);
    for (const Party& party : members_) inputs_[party.place] = input(party, shard, row);
    kernels::weighted_average(sum, {inputs_.data(), n}, {weights_.data(), n});
  }
  staging_.keep(row);
  // Who gives up may change what has just been read, which nobody must hear of then.
  for (const Party& party : members_) {
    if (Status s = windows_.gave_up(*party.peer); !s) return s;
  }
  for (const Party& party : leaders_) {
    if (row == 0) {
      if (Status s = windows_.find_lanes(*party.peer, sequence_, layout_.lanes_bytes()); !s) {
        return s;
      }
    }
    const VectorView sum = staging_.landing(party.place, row);
    const std::size_t at = party.own_lane + in_lane(0, row) + packing_.offset(sum.count);
    const void* packed = packing_.pack(sum, first_of(party.place, row));
    if (Status s = windows_.put_to_lanes(*party.peer, at, packed, packing_.bytes(sum.count),
                                         progress(sequence_, row + 1, staging_.flags()));
        !s) {
      return s;
    }
  }
  return {};
}

/// What a member of this host has contributed.
ConstVectorView Hierarchical::input(const Party& party, std::size_t shard, std::size_t row) const {
  const Peer& peer = *party.peer;
  const std::size_t count = shards().of(shard, row).size();
  if (peer.mapped()) {
    return layout_.view(peer.region.memory.get() + staging_.source(party.flags, shard, row), count);
  }
  return unpacked(party.lane + in_lane(shard, row), count);
}

VectorView Hierarchical::unpacked(std::size_t in_lanes, std::size_t count) const {
  const VectorView part = layout_.view(windows_.lanes() + in_lanes, count);
  packing_.unpack(part);
  return part;
}

Status Hierarchical::reduce(std::size_t row) {
  const VectorView mean = staging_.landing(host_, row);
  for (Party& party : leaders_) {
    if (Status s = windows_.await_contribution(*party.peer, true, sequence_, row + 1, &party.flags);
        !s) {
      return s;
    }
    inputs_[party.place] = unpacked(party.lane + in_lane(0, row), mean.count);
  }
  inputs_[host_] = mean;
  const std::size_t n = hosts_.size();
  std::fill_n(weights_.begin(), n, 1.0);
  kernels::weighted_average(mean, {inputs_.data(), n}, {weights_.data(), n});
  packing_.round(mean, first_of(host_, row));
  for (const Party& party : leaders_) {
    if (Status s = write_mean(party, host_, row, true); !s) return s;
  }
  return {};
}

/// To where it belongs at the party. `announces`: with it, that the row is complete.
Status Hierarchical::write_mean(const Party& party, std::size_t shard, std::size_t row,
                                bool announces) {
  const Peer& peer = *party.peer;
  const VectorView mean = staging_.landing(shard, row);
  const std::size_t at = staging_.target(party.flags, shard, row);
  const Iteration done = progress(sequence_, row + 1);
  if (peer.mapped()) {
    kernels::copy(layout_.view(peer.region.memory.get() + at, mean.count), mean);
    return announces ? windows_.signal(peer, Sign::reduced, done) : Status();
  }
  const void* packed = packing_.pack(mean, first_of(shard, row));
  const std::size_t begin = at + packing_.offset(mean.count);
  const std::size_t length = packing_.bytes(mean.count);
  if (announces) return windows_.put(peer, begin, packed, length, Sign::reduced, done);
  return windows_.world().transport().put(peer.region, begin, packed, length);
}

Status Hierarchical::hand_out(std::size_t row) {
  for (const Party& party : leaders_) {
    if (Status s = windows_.await(*party.peer, Sign::reduced, progress(sequence_, row + 1)); !s) {
      return s;
    }
    if (!party.peer->mapped()) packing_.unpack(staging_.landing(party.place, row));
  }
  for (const Party& party : members_) {
    for (std::size_t shard = 0; shard < hosts_.size(); ++shard) {
      const bool last = shard + 1 == hosts_.size();
      if (Status s = write_mean(party, shard, row, last); !s) return s;
    }
  }
  take(row);
  return {};
}

Status Hierarchical::contribute(std::size_t row) {
  const Party& leader = members_.front();
  Peer& peer = *leader.peer;
  if (peer.mapped()) {
    for (std::size_t shard = 0; shard < hosts_.size(); ++shard) staging_.stage(shard, row);
    staging_.keep(row);
    const std::size_t readable = staging_.readable(row);
    if (readable == 0) return {};
    return windows_.signal(peer, Sign::contributed,
                           progress(sequence_, readable, staging_.flags()));
  }
  staging_.keep(row);
  if (row == 0) {
    if (Status s = windows_.find_lanes(peer, sequence_, layout_.lanes_bytes()); !s) return s;
  }
  for (std::size_t shard = 0; shard < hosts_.size(); ++shard) {
    const VectorView part = staging_.part(shard, row);
    const void* packed = packing_.pack(part, first_of(shard, row));
    const std::size_t at = leader.own_lane + in_lane(shard, row) + packing_.offset(part.count);
    const std::size_t length = packing_.bytes(part.count);
    const bool last = shard + 1 == hosts_.size();
    if (Status s = last ? windows_.put_to_lanes(peer, at, packed, length,
                                                progress(sequence_, row + 1, staging_.flags()))
                        : windows_.put_to_lanes(peer, at, packed, length);
        !s) {
      return s;
    }
  }
  return {};
}

Status Hierarchical::collect(std::size_t row) {
  const Peer& leader = *members_.front().peer;
  if (Status s = windows_.await(leader, Sign::reduced, progress(sequence_, row + 1)); !s) return s;
  for (std::size_t shard = 0; shard < hosts_.size() && !leader.mapped(); ++shard) {
    packing_.unpack(staging_.landing(shard, row));
  }
  take(row);
  return {};
}

/// Means that have landed, into a vector that is staged.
void Hierarchical::take(std::size_t row) {
  if (!staging_.staged()) return;
  for (std::size_t shard = 0; shard < hosts_.size(); ++shard) {
    kernels::copy(staging_.part(shard, row), staging_.landing(shard, row));
  }
}

Status Hierarchical::complete() {
  for (const auto* parties : {&leaders_, &members_}) {
    for (const Party& party : *parties) {
      if (Status s = windows_.await_local_completion(*party.peer); !s) return s;
      if (Status s = windows_.gave_up(*party.peer); !s) return s;
    }
  }
  // Leaders have read all lanes, and found each other's. Of members only the leader's are known.
  for (const Party& party : leaders_) party.peer->ready_for = sequence_ + 1;
  const std::size_t own = shards().of(host_).size();
  const std::size_t sent =
      leads_ ? layout_.count - own + leaders_.size() * own + members_.size() * layout_.count
             : layout_.count;
  windows_.world().counters().bytes_sent.add(packing_.bytes(sent));
  return {};
}

}  // namespace slip::partial_all_reduce
