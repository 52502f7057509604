#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace slip {

/// The threshold rule of dynamic backup workers (DTUR; Xiong, Yan, Singh, Li: Straggler-Resilient
/// Distributed Machine Learning with Dynamic Backup Workers, 2021): an iteration may end as soon as
/// it establishes an edge of a fixed spanning tree that no iteration of this epoch has established
/// yet, that is, as soon as both of its ends have finished. When every edge has been, a new epoch
/// begins. So an epoch has one iteration per edge, and connects all workers.
class Dtur {
 public:
  /// The edges of a spanning tree of `workers`, each once. At least `floor` workers finish in an
  /// iteration (a participation floor, which the paper does not have).
  Dtur(int workers, std::vector<std::pair<int, int>> tree, int floor = 1);

  /// One more worker has finished; each does at most once in an iteration.
  void finished(int rank);
  bool has_finished(int rank) const { return bit(members_, rank); }

  /// A new edge is established and enough workers have finished, or all have.
  bool may_end() const { return count_ == workers_ || (new_edge_ && count_ >= floor_); }
  bool all_finished() const { return count_ == workers_; }

  /// Who has finished, a bit for each rank, 64 to a word.
  const std::vector<std::uint64_t>& members() const { return members_; }

  /// Ends the iteration, which counts as having established its first new edge, if several.
  void end();

  static std::size_t words(int workers) { return (static_cast<std::size_t>(workers) + 63) / 64; }
  static bool bit(const std::vector<std::uint64_t>& bits, int rank) {
    const auto i = static_cast<std::size_t>(rank);
    return (bits[i / 64] >> (i % 64) & 1) != 0;
  }

 private:
  int workers_;
  int floor_;
  std::vector<std::pair<int, int>> tree_;
  std::vector<std::vector<std::size_t>> edges_of_;  // by rank: indices into tree_
  std::vector<bool> established_;                   // by edge, in this epoch
  std::size_t left_;                                // edges that are not
  // Of the iteration at hand.
  std::vector<std::uint64_t> members_;
  int count_ = 0;
  std::optional<std::size_t> new_edge_;
};

}  // namespace slip
