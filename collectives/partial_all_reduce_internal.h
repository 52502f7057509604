#pragma once

#include <cstddef>
#include <vector>

#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/collectives/staging_internal.h"
#include "slipstream/collectives/windows_internal.h"
#include "slipstream/kernels/vector.h"

#pragma GCC visibility push(hidden)

namespace slip::partial_all_reduce {

/// Everybody sends everything to everybody.
class OneShot {
 public:
  OneShot(Windows& windows, const Layout& layout);
  Status mean(const Operation& operation, VectorView vector);

 private:
  Status send(const Peer& peer, std::size_t at, VectorView vector, Word word) const;

  Windows& windows_;
  const Layout& layout_;
  std::vector<ConstVectorView> inputs_;  // by place
  std::vector<double> weights_;
};

/// Reduce-scatter and all-gather.
///
/// A member's shard is cut into chunks, which go through three stages: contribute (everybody makes
/// its part readable to that member), reduce (that member writes the mean to everybody) and collect
/// (everybody waits for it). A stage is `ahead` chunks ahead of the next, so that they overlap.
class TwoShot {
 public:
  TwoShot(Windows& windows, const Layout& layout, Staging& staging, Packing& packing);

  /// Says to those members who reach this worker through lanes that these are ready.
  Status announce(const Operation& operation);

  /// `current` is the buffer with this worker's vector, or through which `vector` is staged. A
  /// failure leaves the vector as it was, unless in place.
  Status mean(const Operation& operation, VectorView vector, unsigned current);

 private:
  /// Another member.
  struct Party {
    Peer* peer;
    std::size_t place;
    std::size_t own_lane;  // this worker's, in the member's lanes
    std::size_t lane;      // the member's, in this worker's

    // Of the chunk that is being reduced.
    const std::byte* input = nullptr;
    std::size_t output = 0;  // in the member's region
  };

  void begin(const Operation& operation, VectorView vector, unsigned current);
  Status run();
  Status contribute(std::size_t c);
  Status offer(const Party& party, std::size_t c);
  Status reduce(std::size_t c);
  Status find(Party& party, std::size_t c);
  void average(std::size_t c);
  Status collect(std::size_t c);
  Status complete();

  const Shards& shards() const { return staging_.shards(); }
  std::size_t bytes(std::size_t elements) const { return elements * size_of(layout_.dtype); }
  /// Where this worker's shard of the mean goes.
  VectorView result(std::size_t c) const {
    return staging_.staged() ? staging_.part(place_, c) : staging_.landing(place_, c);
  }

  Windows& windows_;
  const Layout& layout_;
  Staging& staging_;
  Packing& packing_;
  std::vector<ConstVectorView> inputs_;  // by place
  std::vector<double> weights_;
  std::vector<VectorView> copies_;  // of the chunk that is being reduced
  // Of this operation.
  std::uint64_t sequence_ = 0;
  std::size_t place_ = 0;      // of this worker
  std::vector<Party> others_;  // in the order in which they are served
  bool rounds_ = false;        // some are reached by the transport, which may round
};

/// Between hosts: each has a leader among the members on it, which reduces what these have,
/// averages with the other leaders, and hands out the mean. So every byte leaves and enters a host
/// once, and not once for every member. Where all hosts have several NICs, each has a leader for
/// every one of so many rails: a part of the vector, which the leaders of that rail average.
///
/// A rail has a shard for each host. Chunk c of all shards together, row c, goes through three
/// stages, one `ahead` rows ahead of the next. The leader of a rail does, of its shards:
///   - gather: it sums its host's members (each weighted by 1 / size) into the landing place, and
///     puts the sums of other hosts' shards into its lanes at their leaders;
///   - reduce: it adds the hosts' sums of its own shard, and puts the mean to the other leaders;
///   - hand out: once the other shards' means have come, its members get the row.
/// To the leaders of the other rails everybody contributes theirs, and collects it from them.
///
/// Lanes hold `window` rows. What they held `window` rows ago has become a mean and come back.
class Hierarchical {
 public:
  Hierarchical(Windows& windows, const Layout& layout, Staging& staging, Packing& packing);

  /// Whether lanes suffice for a group of that shape.
  static bool fits(const Layout& layout, const GroupShape& shape) {
    return chunk_of(layout, shape) > 0;
  }
  /// GroupShape::rails.
  int rails(const Group& group);

  /// Who leads whom; connects to those with whom this worker has to do.
  Status prepare(const Group& group, const GroupShape& shape);
  /// Says to those who reach this worker through lanes that these are ready.
  Status announce();
  /// As TwoShot's.
  Status mean(VectorView vector, unsigned current);

 private:
  /// A member of this host, or another host's leader.
  struct Party {
    Peer* peer;
    std::size_t place;     // among the host's members, among the hosts, or its rail
    std::size_t own_lane;  // this worker's, at the party
    std::size_t lane;      // the party's, at this worker
    unsigned flags = 0;    // as it said last
  };
  struct Host {
    int number = 0;  // in the topology
    int first = 0;   // the first member on it
  };

  /// Elements; 0 if there is none that fits.
  static std::size_t chunk_of(const Layout& layout, const GroupShape& shape);
  const std::vector<int>& leaders_on(int host, const Group& group);
  int leader_of(const Host& host, std::size_t rail, const Group& group);
  void list_hosts(const Group& group);
  Status prepare_to_lead(const Group& group);
  Status meet(int rank, std::size_t place, std::size_t own_lane, std::size_t lane,
              std::vector<Party>* parties);

  Status run();
  // Of its own rail, by whom leads one.
  Status gather(std::size_t row);
  Status reduce(std::size_t row);
  Status hand_out(std::size_t row);
  ConstVectorView input(const Party& party, std::size_t host, std::size_t row) const;
  VectorView unpacked(std::size_t in_lanes, std::size_t count) const;
  Status write_mean(const Party& party, std::size_t host, std::size_t row, bool announces);
  // Of the other rails.
  Status contribute(std::size_t row);
  Status contribute_to(const Party& leader, std::size_t row);
  Status collect(std::size_t row);
  void take(std::size_t rail, std::size_t row);
  Status complete();

  const Shards& shards() const { return staging_.shards(); }
  std::size_t shard(std::size_t rail, std::size_t host) const {
    return rail * hosts_.size() + host;
  }
  std::size_t bytes(std::size_t elements) const { return elements * size_of(layout_.dtype); }
  std::size_t first_of(std::size_t shard, std::size_t row) const {
    return shards().of(shard, row).begin;
  }
  /// Lanes of other leaders come first, then those of members.
  std::size_t leaders_lane() const { return rows_in_lane_ * bytes(shards_.chunk); }
  std::size_t members_lane(std::size_t place, std::size_t leaders_place) const;
  /// Of a host's shard of a row in a member's lane.
  std::size_t in_lane(std::size_t host, std::size_t row) const {
    return (host * rows_in_lane_ + row % rows_in_lane_) * bytes(shards_.chunk);
  }

  Windows& windows_;
  const Layout& layout_;
  Staging& staging_;
  Packing& packing_;
  const Topology* topology_ = nullptr;   // once needed
  std::vector<int> candidates_;          // of leaders_on
  std::vector<ConstVectorView> inputs_;  // by place
  std::vector<double> weights_;
  // Of this operation.
  std::uint64_t sequence_ = 0;
  std::vector<Host> hosts_;  // in order of their first members
  std::size_t host_ = 0;     // this worker's
  std::vector<int> locals_;  // the members on it
  std::size_t place_ = 0;    // of this worker among them
  bool leads_ = false;
  std::size_t rail_ = 0;            // that it leads
  std::vector<Party> members_;      // the others of this host, if it leads
  std::vector<Party> leaders_;      // its rail's other leaders
  std::vector<Party> other_rails_;  // their leaders on this host
  double weight_ = 0;               // of a member
  Shards shards_;
  std::size_t rows_in_lane_ = 0;
};

}  // namespace slip::partial_all_reduce

#pragma GCC visibility pop
