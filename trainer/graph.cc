#include "slipstream/trainer/graph.h"

#include <fmt/format.h>

#include <algorithm>

#include "slipstream/base/error.h"
#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

bool by_receiver(const Edge& a, const Edge& b) {
  return a.to != b.to ? a.to < b.to : a.from < b.from;
}

}  // namespace

Weights parse_weights(std::string_view text) {
  if (text == "uniform") return Weights::uniform;
  if (text == "metropolis") return Weights::metropolis;
  throw Error(Code::invalid_argument,
              fmt::format("unknown weights '{}'; allowed are uniform and metropolis", text));
}

std::string_view to_string(Weights weights) {
  return weights == Weights::uniform ? "uniform" : "metropolis";
}

void Graph::check(const Edge& edge, int workers) {
  for (const int rank : {edge.from, edge.to}) {
    if (rank < 0 || rank >= workers) {
      throw Error(Code::invalid_argument,
                  fmt::format("there is no worker {}; ranks are 0 to {}", rank, workers - 1));
    }
  }
  if (edge.from == edge.to) {
    throw Error(Code::invalid_argument,
                fmt::format("an edge joins worker {} to itself; leave it out, a worker's own model "
                            "always counts",
                            edge.from));
  }
  if (edge.weight && !(*edge.weight > 0 && *edge.weight <= 1)) {
    throw Error(Code::invalid_argument, fmt::format("the edge {} -> {} has weight {}; allowed are "
                                                    "numbers above 0 and up to 1",
                                                    edge.from, edge.to, *edge.weight));
  }
}

Graph::Graph(int workers, std::vector<Edge> edges) {
  if (workers < 1) {
    throw Error(Code::invalid_argument,
                fmt::format("a graph of {} workers; at least 1 is needed", workers));
  }
  for (const Edge& edge : edges) check(edge, workers);
  std::sort(edges.begin(), edges.end(), by_receiver);

  in_.first.assign(workers + 1, 0);
  out_.first.assign(workers + 1, 0);
  in_.node.reserve(edges.size());
  for (std::size_t e = 0; e < edges.size(); ++e) {
    const Edge& edge = edges[e];
    if (e > 0 && !by_receiver(edges[e - 1], edge)) {
      throw Error(Code::invalid_argument,
                  fmt::format("the edge {} -> {} appears twice", edge.from, edge.to));
    }
    in_.node.push_back(edge.from);
    ++in_.first[edge.to + 1];
    ++out_.first[edge.from + 1];
  }
  for (int i = 0; i < workers; ++i) {
    in_.first[i + 1] += in_.first[i];
    out_.first[i + 1] += out_.first[i];
  }
  // Receivers come in order, so every sender's list is filled in order too.
  out_.node.resize(edges.size());
  std::vector<std::size_t> end(out_.first.begin(), out_.first.end() - 1);
  for (const Edge& edge : edges) out_.node[end[edge.from]++] = edge.to;

  if (std::any_of(edges.begin(), edges.end(), [](const Edge& e) { return e.weight.has_value(); })) {
    weight_.reserve(edges.size());
    for (const Edge& edge : edges) weight_.push_back(edge.weight.value_or(0));
  }
  symmetric_ = in_.first == out_.first && in_.node == out_.node;
  strongly_connected_ = find_strongly_connected();
  fingerprint_ = find_fingerprint();
}

std::uint64_t Graph::find_fingerprint() const {
  const auto of = [](const auto& vector) {
    return kernels::checksum(std::as_bytes(std::span(vector)));
  };
  const std::uint64_t parts[] = {of(in_.first), of(in_.node), of(weight_)};
  return of(parts);
}

std::vector<int> Graph::search(int from, const Adjacency& next) const {
  std::vector<int> distance(size(), -1);
  std::vector<int> queue{from};
  queue.reserve(size());
  distance.at(from) = 0;
  for (std::size_t head = 0; head < queue.size(); ++head) {
    for (const int node : next.of(queue[head])) {
      if (distance[node] >= 0) continue;
      distance[node] = distance[queue[head]] + 1;
      queue.push_back(node);
    }
  }
  return distance;
}

std::vector<int> Graph::distances(int from) const { return search(from, out_); }

bool Graph::find_strongly_connected() const {
  // All are reached from worker 0, and worker 0 from all.
  const auto reaches_all = [this](const Adjacency& next) {
    const std::vector<int> distance = search(0, next);
    return std::find(distance.begin(), distance.end(), -1) == distance.end();
  };
  return reaches_all(out_) && reaches_all(in_);
}

Weights Graph::resolve(std::optional<Weights> asked) const {
  const Weights rule = asked.value_or(symmetric_ ? Weights::metropolis : Weights::uniform);
  if (rule == Weights::metropolis && !symmetric_) {
    throw Error(Code::invalid_argument,
                "metropolis weights need a symmetric graph, and this one is directed; take uniform "
                "weights or add the missing edges");
  }
  // Both rules leave a worker some weight of its own; what a file says may not.
  for (int i = 0; i < size() && !weight_.empty(); ++i) {
    const double own = mixing_row(i, rule).own;
    if (own < 0) {
      throw Error(Code::invalid_argument,
                  fmt::format("the weights of the edges to worker {} sum to {:.6g}; at most 1 is "
                              "allowed, the rest is the worker's own",
                              i, 1 - own));
    }
  }
  return rule;
}

MixingRow Graph::mixing_row(int rank, Weights rule) const {
  const auto neighbours = neighbours_in(rank);
  const std::size_t degree = neighbours.size();
  MixingRow row;
  row.in.reserve(degree);
  for (std::size_t k = 0; k < degree; ++k) {
    const double given = weight_.empty() ? 0 : weight_[in_.first[rank] + k];
    const std::size_t larger =
        rule == Weights::uniform ? degree : std::max(degree, neighbours_in(neighbours[k]).size());
    row.in.push_back(given > 0 ? given : 1.0 / static_cast<double>(larger + 1));
    row.own -= row.in.back();
  }
  // Weights such as three times a third may sum to a rounding error above 1.
  if (row.own < 0 && row.own > -1e-9) row.own = 0;
  return row;
}

}  // namespace slip
