#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/align_internal.h"
#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/base/word.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/runtime/world.h"
#include "slipstream/transport/region.h"

#pragma GCC visibility push(hidden)

namespace slip::partial_all_reduce {

/// A worker has a slot of memory for each of its peers, in order of rank.
constexpr std::size_t slot(int sender, int receiver) {
  return static_cast<std::size_t>(sender < receiver ? sender : sender - 1);
}

/// How far a sender is, in the 48 bits of a word that are its own: `sequence:38 | step:8 |
/// flags:2`. It only rises, and may wrap.
constexpr int step_bits = 8;
constexpr int flag_bits = 2;
constexpr std::size_t max_steps = (std::size_t{1} << step_bits) - 1;
constexpr Iteration progress(std::uint64_t sequence, std::size_t step, unsigned flags = 0) {
  return ((sequence << step_bits | step) << flag_bits | flags) & max_iteration;
}
constexpr std::uint64_t sequence_of(Word word) {
  return iteration_of(word) >> (step_bits + flag_bits);
}
constexpr unsigned flags_of(Word word) { return word & ((1u << flag_bits) - 1); }
constexpr bool reached(Word word, Iteration progress) {
  return static_cast<std::int64_t>((word - progress) << (64 - iteration_bits)) >= 0;
}

/// The words that a worker writes into its line at a peer.
enum class Sign : std::size_t {
  contributed = 0,            // its vector can be read up to this step
  reduced = sizeof(Word),     // its mean has been written up to this step
  ready = 2 * sizeof(Word),   // its lanes may be written for this group
  gave_up = 3 * sizeof(Word)  // for good; see give_up()
};

/// A peer that this worker has met.
struct Peer {
  int rank = -1;
  RemoteRegion region;
  RemoteRegion lanes;           // where it is not mapped, once something went through them
  std::size_t own_line = 0;     // of this worker, in `region`
  std::size_t line = 0;         // of the peer, in this worker's region
  std::uint64_t exchanges = 0;  // operations in one shot with it
  std::uint64_t ready_for =
      0;  // its lanes may be written for this group, whether it says so or not

  bool mapped() const { return region.mapped(); }
};

/// A member of an operation but this worker.
struct Member {
  Peer* peer;
  std::size_t place;  // among the members
};

/// One operation, as this worker sees it.
struct Operation {
  std::uint64_t sequence = 0;
  std::size_t place = 0;       // this worker's among the members
  std::vector<Member> others;  // in the order in which they are served
  std::size_t size() const { return others.size() + 1; }
};

/// This worker's memory that peers write, and theirs, all known by one name.
class Windows {
 public:
  using Wait = decltype(PartialAllReduceOptions::wait);

  /// A region of `bytes`, and a line of words per peer behind them.
  Windows(const World& world, std::string_view name, std::size_t bytes,
          const PartialAllReduceOptions& options);

  const World& world() const { return world_; }
  const Region& region() const { return region_; }
  bool has_waited() const { return has_waited_; }

  /// Connects to everybody, lanes included. By all workers, at set-up; throws Error.
  void meet_all(std::size_t lanes_bytes);
  /// A peer's memory of that name, which must be of that size. Throws Error.
  RemoteRegion attach(int peer, const std::string& name, std::size_t bytes) const;
  /// Connects to whom it has not met. Codes: those of Transport::attach; peer_mismatch.
  Status meet(int rank, Peer** peer);

  Word word(const Peer& peer, Sign sign) const {
    return region_.word(peer.line + static_cast<std::size_t>(sign));
  }
  Status signal(const Peer& peer, Sign sign, Iteration progress) const {
    return put(peer, 0, nullptr, 0, sign, progress);
  }
  /// `bytes`, which are none if the peer is mapped, and then the word.
  Status put(const Peer& peer, std::size_t offset, const void* from, std::size_t bytes, Sign sign,
             Iteration progress) const {
    const std::size_t at = peer.own_line + static_cast<std::size_t>(sign);
    const Word word = make_word(world_.incarnation(), progress);
    if (!peer.mapped() || device_ != gpu::host) {
      return world_.transport().put_signal(peer.region, offset, from, bytes, at, word);
    }
    peer.region.signal_mapped(at, word);
    return {};
  }

  /// Until `arrived`, which is up to `peer`, or the peer gives up. No clock is read where nothing
  /// has to be waited for.
  template <class Condition>
  Status await(const Peer& peer, const Condition& arrived) {
    if (arrived()) [[likely]]
      return {};
    return wait_for(peer, arrived);
  }
  /// Until the peer has said `sign` for that much.
  Status await(const Peer& peer, Sign sign, Iteration progress) {
    return await(peer, [&] { return reached(word(peer, sign), progress); });
  }

  /// Until `done`, which is up to all members, or one of them gives up.
  Status await_all(const Operation& operation, FunctionRef<bool()> done, std::string_view what);

  /// Until the peer has contributed that many steps to the group, through its lane or to be loaded.
  /// What it said with it goes to `flags`.
  Status await_contribution(const Peer& peer, bool through_lane, std::uint64_t sequence,
                            std::size_t steps, unsigned* flags) {
    const auto said = [&] {
      return through_lane ? lane_word(peer) : word(peer, Sign::contributed);
    };
    const Iteration wanted = progress(sequence, steps);
    if (Status s = await(peer, [&] { return reached(said(), wanted); }); !s) return s;
    const Word word = said();
    *flags = flags_of(word);
    return check_sequence(peer, word, sequence);
  }

  /// Until what was put to `peer` may be overwritten here.
  Status await_local_completion(const Peer& peer) {
    if (copies_at_post_ || peer.mapped()) return {};
    return await(peer, [&] { return world_.transport().drained(peer.rank); });
  }

  /// This worker has failed: every peer that it has met is told, before its caller may change what
  /// they read.
  void give_up(const Status& why);
  /// Why the peer has given up; ok if it has not.
  Status gave_up(const Peer& peer) const {
    const Word word = this->word(peer, Sign::gave_up);
    if (word == 0) [[likely]]
      return {};
    return explain(peer, word);
  }

  // ---- Lanes, for peers that cannot reach this worker's memory by load and store: a word for each
  // of them, and `bytes` behind these.

  /// Makes this worker's, on first use, and says to the peer that they are ready for this group.
  Status open_lanes(const Peer& peer, std::uint64_t sequence, std::size_t bytes);
  /// Connects to those of a peer, which are as large, as soon as it has said that it is ready for
  /// this group.
  Status find_lanes(Peer& peer, std::uint64_t sequence, std::size_t bytes);
  std::byte* lanes() const { return lanes_.data() + lines_bytes(); }
  /// What the peer has said about what it put there.
  Word lane_word(const Peer& peer) const {
    return lanes_.word(slot(peer.rank, world_.rank()) * line);
  }
  /// Bytes that are announced with those of a later call, or these.
  Status put_to_lanes(const Peer& peer, std::size_t offset, const void* from,
                      std::size_t bytes) const {
    return world_.transport().put(peer.lanes, lines_bytes() + offset, from, bytes);
  }
  Status put_to_lanes(const Peer& peer, std::size_t offset, const void* from, std::size_t bytes,
                      Iteration progress) const {
    return world_.transport().put_signal(peer.lanes, lines_bytes() + offset, from, bytes,
                                         slot(world_.rank(), peer.rank) * line,
                                         make_word(world_.incarnation(), progress));
  }

  /// A member that is in another group than this worker took the groups in another order.
  Status check_sequence(const Peer& peer, Word word, std::uint64_t sequence) const {
    if (sequence_of(word) == sequence_of(progress(sequence, 0))) [[likely]]
      return {};
    return out_of_order(peer, word, sequence);
  }

 private:
  Status wait_for(const Peer& peer, FunctionRef<bool()> arrived);
  Status wait(FunctionRef<bool()> over, std::string_view what);
  Status explain(const Peer& peer, Word word) const;
  Status out_of_order(const Peer& peer, Word word, std::uint64_t sequence) const;
  std::size_t lines_bytes() const { return static_cast<std::size_t>(world_.size() - 1) * line; }
  void make_lanes(std::size_t bytes);
  void attach_lanes(Peer& peer, std::size_t bytes);

  const World& world_;
  const std::string name_;
  const bool copies_at_post_;
  const int device_;
  const Wait wait_;
  const Bell bell_;
  const std::size_t lines_;  // where they begin
  Region region_;
  Region lanes_;
  std::vector<std::unique_ptr<Peer>> peers_;  // by rank; null: never met
  bool has_waited_ = false;
  std::atomic<bool> told_{false};  // the peers, that this worker has given up
};

}  // namespace slip::partial_all_reduce

#pragma GCC visibility pop
