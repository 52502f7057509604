#pragma once

#include <vector>

namespace slip {

/// One end of an edge of the communication graph, as a worker sees it.
struct Neighbour {
  int peer = -1;
  /// This worker's place among the peer's neighbours on the other end of the edge (both lists in
  /// order of rank): which of the peer's slots or words are ours to write.
  int index = 0;
};

/// A worker's neighbours without itself, in order of rank.
struct Neighbourhood {
  std::vector<Neighbour> in;   // who sends to this worker
  std::vector<Neighbour> out;  // to whom it sends
};

}  // namespace slip
