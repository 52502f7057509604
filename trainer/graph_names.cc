// The graphs that have names, and those that come in a file.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "slipstream/base/error.h"
#include "slipstream/trainer/graph.h"

namespace slip {
namespace {

/// Collects edges; on few workers rules collide, so loops and repetitions are dropped.
class Builder {
 public:
  void directed(int from, int to) {
    if (from != to) edges_.push_back({from, to, {}});
  }
  void both(int a, int b) {
    directed(a, b);
    directed(b, a);
  }

  /// Workers first .. first + n - 1.
  void ring(int first, int n) {
    for (int i = 0; i < n; ++i) both(first + i, first + (i + 1) % n);
  }

  /// A ring whose workers also know the most distant one (Hop, evaluation).
  void ring_based(int first, int n) {
    ring(first, n);
    for (int i = 0; i < n; ++i) both(first + i, first + (i + n / 2) % n);
  }

  Graph build(int workers) && {
    const auto key = [](const Edge& e) { return std::pair(e.to, e.from); };
    std::sort(edges_.begin(), edges_.end(),
              [&](const Edge& a, const Edge& b) { return key(a) < key(b); });
    edges_.erase(std::unique(edges_.begin(), edges_.end(),
                             [&](const Edge& a, const Edge& b) { return key(a) == key(b); }),
                 edges_.end());
    return Graph(workers, std::move(edges_));
  }

 private:
  std::vector<Edge> edges_;
};

void ring(Builder& b, int n) { b.ring(0, n); }

void ring_based(Builder& b, int n) { b.ring_based(0, n); }

void double_ring(Builder& b, int n) {
  const int second = (n + 1) / 2;  // an odd worker stands in the first ring, without a partner
  b.ring_based(0, second);
  b.ring_based(second, n - second);
  for (int i = 0; second + i < n; ++i) b.both(i, second + i);
}

void chain(Builder& b, int n) {
  for (int i = 1; i < n; ++i) b.both(i - 1, i);
}

void star(Builder& b, int n) {
  for (int i = 1; i < n; ++i) b.both(0, i);
}

void complete(Builder& b, int n) {
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < i; ++j) b.both(j, i);
  }
}

void exponential(Builder& b, int n) {
  for (int i = 0; i < n; ++i) {
    for (long hop = 1; hop < n; hop *= 2) b.directed(i, static_cast<int>((i + hop) % n));
  }
}

// RelaySum's trees: 0 is the root and has the one child 1; w >= 1 has the children 2w and 2w + 1.
void binary_tree(Builder& b, int n) {
  for (int w = 1; w < n; ++w) b.both(w / 2, w);
}

void reversed_binary_tree(Builder& b, int n) {
  for (int w = 1; w < n; ++w) b.both(n - 1 - w / 2, n - 1 - w);
}

// Everybody has at most three neighbours: the root three children and the others two, layer by
// layer.
void three_tree(Builder& b, int n) {
  for (int w = 1; w < n; ++w) b.both(w < 4 ? 0 : (w - 2) / 2, w);
}

void double_binary_trees(Builder& b, int n) {
  binary_tree(b, n);
  reversed_binary_tree(b, n);
}

struct Named {
  std::string_view name;
  void (*build)(Builder&, int workers);
};

constexpr std::array named_graphs{
    Named{"ring", ring},
    Named{"ring-based", ring_based},
    Named{"double-ring", double_ring},
    Named{"chain", chain},
    Named{"star", star},
    Named{"complete", complete},
    Named{"exponential", exponential},
    Named{"binary-tree", binary_tree},
    Named{"reversed-binary-tree", reversed_binary_tree},
    Named{"3-tree", three_tree},
    Named{"double-binary-trees", double_binary_trees},
};

constexpr auto graph_names = [] {
  std::array<std::string_view, named_graphs.size()> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = named_graphs[i].name;
  return names;
}();

const Named* find_named(std::string_view name) {
  const auto* found = std::find_if(named_graphs.begin(), named_graphs.end(),
                                   [&](const Named& graph) { return graph.name == name; });
  return found == named_graphs.end() ? nullptr : found;
}

std::string allowed_names() { return fmt::format("{}", fmt::join(graph_names, ", ")); }

/// The whole of `text` as a number, or a complaint that says which number it should have been.
template <class Number>
Number parse(const std::string& text, std::string_view what) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Error(Code::bad_data, fmt::format("'{}' is not {}", text, what));
  }
  return value;
}

/// The edge of one line, empty on a line that holds none.
std::optional<Edge> parse_line(std::string line) {
  line.resize(std::min(line.find('#'), line.size()));
  std::istringstream stream(std::move(line));
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(std::move(word));
  if (words.empty()) return std::nullopt;
  if (words.size() != 2 && words.size() != 3) {
    throw Error(Code::bad_data,
                fmt::format("{} fields; a line is 'from to [weight]'", words.size()));
  }
  Edge edge{parse<int>(words[0], "a rank"), parse<int>(words[1], "a rank"), {}};
  if (words.size() == 3) edge.weight = parse<double>(words[2], "a weight");
  return edge;
}

}  // namespace

std::span<const std::string_view> Graph::names() { return graph_names; }

Graph Graph::named(std::string_view name, int workers) {
  const Named* graph = find_named(name);
  if (graph == nullptr) {
    throw Error(Code::invalid_argument,
                fmt::format("unknown graph '{}'; allowed are {}", name, allowed_names()));
  }
  Builder builder;
  graph->build(builder, workers);
  return std::move(builder).build(workers);
}

Graph Graph::from_file(const std::string& path, int workers) {
  if (!std::filesystem::is_regular_file(path)) {
    throw Error(Code::not_found, fmt::format("graph file {}: there is no such file", path));
  }
  std::ifstream file(path);
  std::vector<Edge> edges;
  std::vector<std::pair<std::pair<int, int>, int>> lines;  // (from, to) and the line it stands on
  const auto fail = [&](int line, std::string_view what) {
    throw Error(Code::bad_data, fmt::format("graph file {}, line {}: {}", path, line, what));
  };

  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    try {
      const std::optional<Edge> edge = parse_line(std::move(line));
      if (!edge) continue;
      Graph::check(*edge, workers);
      edges.push_back(*edge);
      lines.push_back({{edge->from, edge->to}, number});
    } catch (const Error& error) {
      fail(number, error.what());
    }
  }
  if (file.bad() || (number == 0 && !file.eof())) {
    throw Error(Code::io, fmt::format("graph file {}: cannot be read", path));
  }
  std::sort(lines.begin(), lines.end());
  for (std::size_t i = 1; i < lines.size(); ++i) {
    if (lines[i].first != lines[i - 1].first) continue;
    fail(lines[i].second,
         fmt::format("the edge {} -> {} stands on line {} already", lines[i].first.first,
                     lines[i].first.second, lines[i - 1].second));
  }

  Graph graph(workers, std::move(edges));
  if (!graph.is_strongly_connected()) {
    throw Error(Code::bad_data,
                fmt::format("graph file {}: not every one of the {} workers can reach every other; "
                            "add the missing edges",
                            path, workers));
  }
  return graph;
}

Graph Graph::make(const std::string& name_or_file, int workers) {
  if (find_named(name_or_file) != nullptr) return named(name_or_file, workers);
  if (!std::filesystem::exists(name_or_file)) {
    throw Error(Code::invalid_argument,
                fmt::format("unknown graph '{}'; allowed are {}, or a file of lines 'from to "
                            "[weight]'",
                            name_or_file, allowed_names()));
  }
  return from_file(name_or_file, workers);
}

}  // namespace slip
