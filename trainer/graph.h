#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/runtime/neighbourhood.h"

namespace slip {

/// How much each update counts: `uniform` 1 / (|N_in| + 1), `metropolis` 1 / (1 + max(deg_i,
/// deg_j)), which is doubly stochastic on every symmetric graph (Xiao, Boyd, Lall: Distributed
/// Average Consensus with Time-Varying Metropolis Weights, 2006).
enum class Weights { uniform, metropolis };

/// "uniform" or "metropolis"; anything else throws Error(invalid_argument).
Weights parse_weights(std::string_view text);
/// "uniform" or "metropolis".
std::string_view to_string(Weights weights);

/// One worker's row of the mixing matrix: x_i becomes own * x_i + sum in[k] * x_{neighbours_in[k]}.
/// The row sums to 1.
struct MixingRow {
  double own = 1;
  std::vector<double> in;
};

/// One direction of an edge.
struct Edge {
  int from = 0;
  int to = 0;
  std::optional<double> weight;  // of the sender's update at the receiver; empty: by the rule
};

/// Who sends to whom (Hop, section 2; papers' N_in and N_out, here always without the worker
/// itself). Immutable after construction, so any thread may read it. Memory is linear in workers
/// and edges.
class Graph {
 public:
  /// Ranks must be in [0, workers); no edge may join a worker to itself or appear twice; weights
  /// lie in (0, 1]. Throws Error(invalid_argument).
  Graph(int workers, std::vector<Edge> edges);

  /// What the constructor asks of each edge by itself. Throws Error(invalid_argument).
  static void check(const Edge& edge, int workers);

  /// A graph of `names()`. Throws Error(invalid_argument) for another name or workers < 1.
  static Graph named(std::string_view name, int workers);

  /// Lines `from to [weight]`; '#' starts a comment. Throws Error: not_found, io, or bad_data with
  /// the file and line; the graph must be strongly connected.
  static Graph from_file(const std::string& path, int workers);

  /// What `--graph` takes: one of `names()`, else a file.
  static Graph make(const std::string& name_or_file, int workers);

  static std::span<const std::string_view> names();

  int size() const { return static_cast<int>(in_.first.size()) - 1; }
  std::size_t edge_count() const { return in_.node.size(); }
  /// Graphs of other edges or weights have, in all likelihood, another fingerprint.
  std::uint64_t fingerprint() const { return fingerprint_; }

  /// Sorted by rank.
  std::span<const int> neighbours_in(int rank) const { return in_.of(rank); }
  std::span<const int> neighbours_out(int rank) const { return out_.of(rank); }

  /// The worker's side of every edge, each with its place in the peer's list.
  Neighbourhood neighbourhood(int rank) const;

  /// Every edge has its reverse.
  bool is_symmetric() const { return symmetric_; }
  bool is_strongly_connected() const { return strongly_connected_; }

  /// Length of the shortest directed path in edges (the papers' length(Path_{from->to})), -1 where
  /// there is none. A breadth-first search: for set-up and tests.
  int distance(int from, int to) const { return distances(from).at(to); }
  std::vector<int> distances(int from) const;

  /// Which rule holds where the user chose `asked` (empty: no choice, so metropolis on a symmetric
  /// graph and uniform on a directed one). Checks every row, and throws Error(invalid_argument) for
  /// metropolis on a directed graph, or where a file's weights leave a worker's own below zero.
  Weights resolve(std::optional<Weights> asked) const;

  /// Worker `rank`'s row by a rule that `resolve` has passed. Weights that the edges carry go
  /// before the rule; the worker's own takes what is left.
  MixingRow mixing_row(int rank, Weights rule) const;

 private:
  /// Compressed sparse rows: node[first[i]] .. node[first[i + 1]] are the neighbours of i.
  struct Adjacency {
    std::vector<std::size_t> first;
    std::vector<int> node;
    std::span<const int> of(int rank) const {
      return {node.data() + first[rank], node.data() + first[rank + 1]};
    }
  };

  bool find_strongly_connected() const;
  std::vector<int> search(int from, const Adjacency& next) const;
  std::uint64_t find_fingerprint() const;

  Adjacency in_;
  Adjacency out_;
  std::vector<double> weight_;  // beside in_.node, 0 where the rule holds; empty without any
  bool symmetric_ = true;
  bool strongly_connected_ = true;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace slip
