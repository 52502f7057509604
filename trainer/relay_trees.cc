#include "slipstream/trainer/relay_trees.h"

#include <algorithm>
#include <utility>

namespace slip {
namespace {

int most_distant(const Graph& graph, int from) {
  const std::vector<int> distance = graph.distances(from);
  return static_cast<int>(std::max_element(distance.begin(), distance.end()) - distance.begin());
}

/// One step back on a shortest path: the neighbour of least rank that is nearer to the start.
int nearer(const Graph& graph, const std::vector<int>& distance, int rank) {
  for (const int peer : graph.neighbours_in(rank)) {
    if (distance[peer] == distance[rank] - 1) return peer;
  }
  return rank;
}

/// The middle of a longest path of a tree, of a long one elsewhere.
int middle(const Graph& graph) {
  const int one_end = most_distant(graph, 0);
  const std::vector<int> distance = graph.distances(one_end);
  int at = most_distant(graph, one_end);
  for (int steps = distance[at] / 2; steps > 0; --steps) at = nearer(graph, distance, at);
  return at;
}

}  // namespace

Graph spanning_tree(const Graph& graph) {
  const int root = middle(graph);
  const std::vector<int> distance = graph.distances(root);
  std::vector<Edge> edges;
  for (int rank = 0; rank < graph.size(); ++rank) {
    if (rank == root) continue;
    const int parent = nearer(graph, distance, rank);
    edges.push_back({parent, rank, {}});
    edges.push_back({rank, parent, {}});
  }
  return Graph(graph.size(), std::move(edges));
}

std::vector<Graph> relay_trees(const Graph& graph) {
  const int n = graph.size();
  const bool is_tree = graph.edge_count() == 2 * static_cast<std::size_t>(n - 1);
  if (!is_tree && graph.fingerprint() == Graph::named("double-binary-trees", n).fingerprint()) {
    return {Graph::named("binary-tree", n), Graph::named("reversed-binary-tree", n)};
  }
  return {spanning_tree(graph)};
}

double mean_hops(const Graph& tree) {
  // Every edge is crossed by the paths between the workers on its two sides.
  const std::vector<int> distance = tree.distances(0);
  std::vector<int> order(distance.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return distance[a] > distance[b]; });
  std::vector<double> beyond(distance.size(), 1);  // workers, this one included
  const auto n = static_cast<double>(tree.size());
  double hops = 0;
  for (const int rank : order) {
    if (rank == 0) break;
    hops += 2 * beyond[rank] * (n - beyond[rank]);
    beyond[nearer(tree, distance, rank)] += beyond[rank];
  }
  return hops / (n * n);
}

}  // namespace slip
