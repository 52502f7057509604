#pragma once

#include <vector>

#include "slipstream/trainer/graph.h"

namespace slip {

/// The trees that RelaySum works on: a graph that is a tree itself; both of `double-binary-trees`,
/// each for one half of the model; else a spanning tree of shortest paths from a worker in its
/// middle, on which each worker has the neighbour of least rank. The graph is symmetric and
/// connected.
std::vector<Graph> relay_trees(const Graph& graph);

/// That spanning tree. The graph is symmetric and connected.
Graph spanning_tree(const Graph& graph);

/// The mean length of the path between two workers of a tree, over all ordered pairs, those of a
/// worker and itself included.
double mean_hops(const Graph& tree);

}  // namespace slip
