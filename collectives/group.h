#pragma once

#include <cstdint>
#include <vector>

namespace slip {

/// The workers of one partial all-reduce, and its place in the order of all groups. Groups without
/// a common member may run at the same time; each worker runs its own in rising order of sequence,
/// so no two workers ever wait for each other in different groups.
struct Group {
  /// 1, 2, ...: rising at every member, and the same number for one group at all its members.
  std::uint64_t sequence = 0;
  std::vector<int> members;  // ranks, ascending
};

}  // namespace slip
