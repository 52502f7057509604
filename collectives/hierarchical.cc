#include <algorithm>
#include <utility>

#include "slipstream/base/copy.h"
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
  const std::size_t in_vector = hosts * static_cast<std::size_t>(shape.rails);
  const std::size_t shard =
      round_up(std::max<std::size_t>(1, divide_up(layout.count, in_vector)) * element, line);
  const std::size_t chunk = std::min(
      shard, std::clamp(round_up(divide_up(shard, rows), line), least_chunk_bytes, chunk_bytes));
  const std::size_t lanes = (per_host - 1) * hosts + hosts - 1;  // with a chunk of a row each
  const std::size_t in_lane = std::min(divide_up(shard, chunk), window);
  if (lanes * in_lane * chunk <= layout.lanes_bytes()) return chunk / element;
  const std::size_t smaller = layout.lanes_bytes() / (lanes * window) / line * line;
  return smaller > 0 && divide_up(shard, smaller) <= max_steps ? smaller / element : 0;
}

/// The leaders of its rails that are members, each once.
const std::vector<int>& Hierarchical::leaders_on(int host, const Group& group) {
  if (topology_ == nullptr) topology_ = &windows_.world().topology();
  candidates_.clear();
  for (const Topology::Leader& leader : topology_->leaders(host)) {
    const bool is_member =
        std::binary_search(group.members.begin(), group.members.end(), leader.rank);
    const bool is_new =
        std::find(candidates_.begin(), candidates_.end(), leader.rank) == candidates_.end();
    if (is_member && is_new) candidates_.push_back(leader.rank);
  }
  return candidates_;
}

int Hierarchical::rails(const Group& group) {
  std::size_t rails = group.members.size();
  int known = -1;  // ranks of one host mostly follow each other
  for (const int rank : group.members) {
    const int host = windows_.world().host_of(rank);
    if (host != std::exchange(known, host)) rails = std::min(rails, leaders_on(host, group).size());
  }
  return static_cast<int>(std::max<std::size_t>(1, rails));
}

/// Where a host has more leaders than there are rails they take turns; where none is a member, it
/// is the first that is.
int Hierarchical::leader_of(const Host& host, std::size_t rail, const Group& group) {
  const std::vector<int>& leaders = leaders_on(host.number, group);
  return leaders.empty() ? host.first : leaders[(group.sequence + rail) % leaders.size()];
}

Status Hierarchical::meet(int rank, std::size_t place, std::size_t own_lane, std::size_t lane,
                          std::vector<Party>* parties) {
  Peer* peer = nullptr;
  if (Status s = windows_.meet(rank, &peer); !s) return s;
  parties->push_back({peer, place, own_lane, lane});
  return {};
}

void Hierarchical::list_hosts(const Group& group) {
  const World& world = windows_.world();
  const int own = world.host_of(world.rank());
  hosts_.clear();
  locals_.clear();
  for (const int rank : group.members) {
    const int number = world.host_of(rank);
    if (number == own) locals_.push_back(rank);
    // Ranks of one host mostly follow each other.
    const auto known = std::find_if(hosts_.rbegin(), hosts_.rend(),
                                    [number](const Host& host) { return host.number == number; });
    if (known == hosts_.rend()) hosts_.push_back({number, rank});
  }
  host_ = static_cast<std::size_t>(
      std::find_if(hosts_.begin(), hosts_.end(), [own](const Host& h) { return h.number == own; }) -
      hosts_.begin());
}

std::size_t Hierarchical::members_lane(std::size_t place, std::size_t leaders_place) const {
  return leaders_lane() * (hosts_.size() - 1 + without(place, leaders_place) * hosts_.size());
}

Status Hierarchical::prepare(const Group& group, const GroupShape& shape) {
  sequence_ = group.sequence;
  weight_ = 1.0 / static_cast<double>(group.members.size());
  list_hosts(group);
  const auto rails = static_cast<std::size_t>(shape.rails);
  shards_ = Shards(hosts_.size() * rails, layout_.count, size_of(layout_.dtype),
                   chunk_of(layout_, shape));
  rows_in_lane_ = std::min(shards_.chunks, window);
  const auto place_of = [&](int rank) {
    return static_cast<std::size_t>(std::lower_bound(locals_.begin(), locals_.end(), rank) -
                                    locals_.begin());
  };
  const int own = windows_.world().rank();
  place_ = place_of(own);
  leads_ = false;
  members_.clear();
  leaders_.clear();
  other_rails_.clear();
  for (std::size_t rail = 0; rail < rails; ++rail) {
    const int leader = leader_of(hosts_[host_], rail, group);
    if (leader == own) {
      leads_ = true;
      rail_ = rail;
    } else if (Status s =
                   meet(leader, rail, members_lane(place_, place_of(leader)), 0, &other_rails_);
               !s) {
      return s;
    }
  }
  return leads_ ? prepare_to_lead(group) : Status();
}

Status Hierarchical::prepare_to_lead(const Group& group) {
  for (std::size_t place = 0; place < locals_.size(); ++place) {
    if (place == place_) continue;
    if (Status s = meet(locals_[place], place, 0, members_lane(place, place_), &members_); !s) {
      return s;
    }
  }
  // Everybody begins with its right-hand neighbour, so that nobody is served by all at once.
  for (std::size_t i = 1; i < hosts_.size(); ++i) {
    const std::size_t other = (host_ + i) % hosts_.size();
    if (Status s = meet(leader_of(hosts_[other], rail_, group), other,
                        leaders_lane() * without(host_, other),
                        leaders_lane() * without(other, host_), &leaders_);
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
    if (Status s = at(&Hierarchical::contribute, step, 0); !s) return s;
    if (leads_) {
      if (Status s = at(&Hierarchical::gather, step, 0); !s) return s;
      if (Status s = at(&Hierarchical::reduce, step, ahead); !s) return s;
      if (Status s = at(&Hierarchical::hand_out, step, 2 * ahead); !s) return s;
    }
    if (Status s = at(&Hierarchical::collect, step, 2 * ahead); !s) return s;
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
  for (std::size_t host = 0; host < hosts_.size(); ++host) {
    const VectorView sum = staging_.landing(shard(rail_, host), row);
    inputs_[place_] = staging_.part(shard(rail_, host), row);
    for (const Party& party : members_) inputs_[party.place] = input(party, host, row);
    kernels::weighted_average(sum, {inputs_.data(), n}, {weights_.data(), n});
  }
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
    const std::size_t theirs = shard(rail_, party.place);
    const VectorView sum = staging_.landing(theirs, row);
    const std::size_t at = party.own_lane + in_lane(0, row) + packing_.offset(sum.count);
    const void* packed = packing_.pack(sum, first_of(theirs, row));
    if (Status s = windows_.put_to_lanes(*party.peer, at, packed, packing_.bytes(sum.count),
                                         progress(sequence_, row + 1, staging_.flags()));
        !s) {
      return s;
    }
  }
  return {};
}

/// What a member of this host has contributed to the host's shard.
ConstVectorView Hierarchical::input(const Party& party, std::size_t host, std::size_t row) const {
  const Peer& peer = *party.peer;
  const std::size_t part = shard(rail_, host);
  const std::size_t count = shards().of(part, row).size();
  if (peer.mapped()) {
    return {peer.region.memory.get() + staging_.source(party.flags, part, row), count,
            layout_.dtype};
  }
  return unpacked(party.lane + in_lane(host, row), count);
}

VectorView Hierarchical::unpacked(std::size_t in_lanes, std::size_t count) const {
  const VectorView part{windows_.lanes() + in_lanes, count, layout_.dtype};
  packing_.unpack(part);
  return part;
}

Status Hierarchical::reduce(std::size_t row) {
  const std::size_t own = shard(rail_, host_);
  const VectorView mean = staging_.landing(own, row);
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
  packing_.round(mean, first_of(own, row));
  for (const Party& party : leaders_) {
    if (Status s = write_mean(party, host_, row, true); !s) return s;
  }
  return {};
}

/// Of the host's shard, to where it belongs at the party. `announces`: with it, that the row is
/// complete.
Status Hierarchical::write_mean(const Party& party, std::size_t host, std::size_t row,
                                bool announces) {
  const Peer& peer = *party.peer;
  const std::size_t part = shard(rail_, host);
  const VectorView mean = staging_.landing(part, row);
  const std::size_t at = staging_.target(party.flags, part, row);
  const Iteration done = progress(sequence_, row + 1);
  if (peer.mapped()) {
    copy_bytes(peer.region.memory.get() + at, mean.data, mean.bytes());
    return announces ? windows_.signal(peer, Sign::reduced, done) : Status();
  }
  const void* packed = packing_.pack(mean, first_of(part, row));
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
    if (!party.peer->mapped()) packing_.unpack(staging_.landing(shard(rail_, party.place), row));
  }
  for (const Party& party : members_) {
    for (std::size_t host = 0; host < hosts_.size(); ++host) {
      const bool last = host + 1 == hosts_.size();
      if (Status s = write_mean(party, host, row, last); !s) return s;
    }
  }
  take(rail_, row);
  return {};
}

Status Hierarchical::contribute(std::size_t row) {
  for (const Party& leader : other_rails_) {
    if (Status s = contribute_to(leader, row); !s) return s;
  }
  staging_.keep(row);
  return {};
}

Status Hierarchical::contribute_to(const Party& leader, std::size_t row) {
  Peer& peer = *leader.peer;
  if (peer.mapped()) {
    for (std::size_t host = 0; host < hosts_.size(); ++host) {
      staging_.stage(shard(leader.place, host), row);
    }
    const std::size_t readable = staging_.readable(row);
    if (readable == 0) return {};
    return windows_.signal(peer, Sign::contributed,
                           progress(sequence_, readable, staging_.flags()));
  }
  if (row == 0) {
    if (Status s = windows_.find_lanes(peer, sequence_, layout_.lanes_bytes()); !s) return s;
  }
  for (std::size_t host = 0; host < hosts_.size(); ++host) {
    const std::size_t part_of = shard(leader.place, host);
    const VectorView part = staging_.part(part_of, row);
    const void* packed = packing_.pack(part, first_of(part_of, row));
    const std::size_t at = leader.own_lane + in_lane(host, row) + packing_.offset(part.count);
    const std::size_t length = packing_.bytes(part.count);
    const bool last = host + 1 == hosts_.size();
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
  for (const Party& leader : other_rails_) {
    if (Status s = windows_.await(*leader.peer, Sign::reduced, progress(sequence_, row + 1)); !s) {
      return s;
    }
    for (std::size_t host = 0; host < hosts_.size() && !leader.peer->mapped(); ++host) {
      packing_.unpack(staging_.landing(shard(leader.place, host), row));
    }
    take(leader.place, row);
  }
  return {};
}

/// Means that have landed, into a vector that is staged.
void Hierarchical::take(std::size_t rail, std::size_t row) {
  if (!staging_.staged()) return;
  for (std::size_t host = 0; host < hosts_.size(); ++host) {
    const std::size_t part = shard(rail, host);
    kernels::copy(staging_.part(part, row), staging_.landing(part, row));
  }
}

Status Hierarchical::complete() {
  for (const auto* parties : {&leaders_, &members_, &other_rails_}) {
    for (const Party& party : *parties) {
      if (Status s = windows_.await_local_completion(*party.peer); !s) return s;
      if (Status s = windows_.gave_up(*party.peer); !s) return s;
    }
  }
  // Leaders have read all lanes, and found each other's. Of members only the leaders' are known.
  for (const Party& party : leaders_) party.peer->ready_for = sequence_ + 1;
  std::size_t led = 0;
  for (std::size_t host = 0; host < hosts_.size() && leads_; ++host) {
    led += shards().of(shard(rail_, host)).size();
  }
  const std::size_t own = leads_ ? shards().of(shard(rail_, host_)).size() : 0;
  const std::size_t sent = layout_.count - own + leaders_.size() * own + members_.size() * led;
  windows_.world().counters().bytes_sent.add(packing_.bytes(sent));
  return {};
}

}  // namespace slip::partial_all_reduce
