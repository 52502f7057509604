#include "slipstream/trainer/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"

namespace slip {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// A file that goes away with the test.
class GraphFile {
 public:
  explicit GraphFile(const std::string& text)
      : path_(testing::TempDir() + "slip_graph_" + std::to_string(::getpid())) {
    std::ofstream(path_) << text;
  }
  ~GraphFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// The mixing matrix times x.
std::vector<double> mix_once(const Graph& graph, Weights rule, const std::vector<double>& x) {
  std::vector<double> y(x.size());
  for (int i = 0; i < graph.size(); ++i) {
    const MixingRow row = graph.mixing_row(i, rule);
    y[i] = row.own * x[i];
    const auto in = graph.neighbours_in(i);
    for (std::size_t k = 0; k < in.size(); ++k) y[i] += row.in[k] * x[in[k]];
  }
  return y;
}

std::vector<double> column_sums(const Graph& graph, Weights rule) {
  std::vector<double> sums(graph.size(), 0);
  for (int i = 0; i < graph.size(); ++i) {
    const MixingRow row = graph.mixing_row(i, rule);
    sums[i] += row.own;
    const auto in = graph.neighbours_in(i);
    for (std::size_t k = 0; k < in.size(); ++k) sums[in[k]] += row.in[k];
  }
  return sums;
}

/// 1 - |lambda_2| of a symmetric mixing matrix, by power iteration across the mean.
double spectral_gap(const Graph& graph, Weights rule) {
  Random random(1);
  std::vector<double> x(graph.size());
  for (double& v : x) v = random.uniform(-1, 1);
  double norm = 0;
  for (int step = 0; step < 3000; ++step) {
    x = mix_once(graph, rule, x);
    double mean = 0;
    for (const double v : x) mean += v / static_cast<double>(x.size());
    norm = 0;
    for (double& v : x) {
      v -= mean;
      norm += v * v;
    }
    norm = std::sqrt(norm);
    for (double& v : x) v /= norm;
  }
  return 1 - norm;
}

TEST(Graph, RingJoinsEachWorkerToTheTwoBesideIt) {
  const Graph ring = Graph::named("ring", 5);
  EXPECT_THAT(ring.neighbours_in(0), ElementsAre(1, 4));
  EXPECT_THAT(ring.neighbours_out(2), ElementsAre(1, 3));
  EXPECT_EQ(ring.distance(0, 3), 2);
}

TEST(Graph, RingBasedAddsTheMostDistantWorker) {
  const Graph graph = Graph::named("ring-based", 8);
  EXPECT_THAT(graph.neighbours_in(1), ElementsAre(0, 2, 5));
}

TEST(Graph, DoubleRingJoinsTwoRingBasedRingsNodeToNode) {
  const Graph graph = Graph::named("double-ring", 16);
  EXPECT_THAT(graph.neighbours_in(1), ElementsAre(0, 2, 5, 9));
  EXPECT_THAT(graph.neighbours_in(9), ElementsAre(1, 8, 10, 13));
}

TEST(Graph, ExponentialIsDirectedWithHopsOfPowersOfTwo) {
  const Graph graph = Graph::named("exponential", 8);
  EXPECT_THAT(graph.neighbours_out(6), ElementsAre(0, 2, 7));
  EXPECT_THAT(graph.neighbours_in(6), ElementsAre(2, 4, 5));
  EXPECT_FALSE(graph.is_symmetric());
}

TEST(Graph, BinaryTreeIsRelaySumsWithOneChildAtTheRoot) {
  const Graph tree = Graph::named("binary-tree", 8);
  EXPECT_THAT(tree.neighbours_in(0), ElementsAre(1));
  EXPECT_THAT(tree.neighbours_in(1), ElementsAre(0, 2, 3));
  EXPECT_THAT(tree.neighbours_in(3), ElementsAre(1, 6, 7));
  // RelaySum's hop diameters.
  for (const auto& [n, diameter] : {std::pair(8, 4), {16, 6}, {32, 8}, {64, 10}}) {
    const Graph graph = Graph::named("binary-tree", n);
    int longest = 0;
    for (int i = 0; i < n; ++i) {
      for (const int d : graph.distances(i)) longest = std::max(longest, d);
    }
    EXPECT_EQ(longest, diameter) << n << " workers";
  }
}

TEST(Graph, DoubleBinaryTreesHoldBothTreesAndAtMostFourNeighbours) {
  for (const int n : {8, 16, 32}) {
    const Graph both = Graph::named("double-binary-trees", n);
    for (int i = 0; i < n; ++i) {
      std::set<int> expected;
      for (const char* name : {"binary-tree", "reversed-binary-tree"}) {
        const Graph tree = Graph::named(name, n);
        expected.insert(tree.neighbours_in(i).begin(), tree.neighbours_in(i).end());
      }
      EXPECT_THAT(both.neighbours_in(i), testing::ElementsAreArray(expected));
      EXPECT_LE(both.neighbours_in(i).size(), 4u);
    }
  }
}

TEST(Graph, EveryNamedGraphHoldsOnAnyNumberOfWorkers) {
  for (const std::string_view name : Graph::names()) {
    for (int n = 1; n <= 20; ++n) {
      SCOPED_TRACE(testing::Message() << name << " of " << n);
      const Graph graph = Graph::named(name, n);  // its constructor refuses loops and repetitions
      ASSERT_EQ(graph.size(), n);
      EXPECT_TRUE(graph.is_strongly_connected());
      if (n == 1) {
        EXPECT_THAT(graph.neighbours_in(0), IsEmpty());
      }
      if (n == 2) {
        EXPECT_THAT(graph.neighbours_in(0), ElementsAre(1));
      }
      const Weights rule = graph.resolve(std::nullopt);
      for (int i = 0; i < n; ++i) {
        EXPECT_TRUE(std::is_sorted(graph.neighbours_in(i).begin(), graph.neighbours_in(i).end()));
        EXPECT_TRUE(std::is_sorted(graph.neighbours_out(i).begin(), graph.neighbours_out(i).end()));
        const MixingRow row = graph.mixing_row(i, rule);
        double sum = row.own;
        for (const double weight : row.in) sum += weight;
        EXPECT_NEAR(sum, 1, 1e-12);
        EXPECT_GT(row.own, 0);
      }
    }
  }
}

TEST(Graph, MetropolisIsDoublyStochasticOnIrregularGraphsAndUniformIsNot) {
  const Graph star = Graph::named("star", 6);
  EXPECT_THAT(column_sums(star, Weights::metropolis), testing::Each(testing::DoubleNear(1, 1e-12)));
  EXPECT_THAT(column_sums(star, Weights::uniform),
              testing::Not(testing::Each(testing::DoubleNear(1, 1e-3))));
}

TEST(Graph, UniformIsDoublyStochasticOnTheRegularDirectedGraph) {
  EXPECT_THAT(column_sums(Graph::named("exponential", 11), Weights::uniform),
              testing::Each(testing::DoubleNear(1, 1e-12)));
}

TEST(Graph, SpectralGapsAreThePapers) {
  const auto gap = [](const char* name, int n) {
    return spectral_gap(Graph::named(name, n), Weights::uniform);
  };
  EXPECT_NEAR(gap("ring", 16), 0.051, 5e-4);
  EXPECT_NEAR(gap("ring-based", 16), 0.146, 5e-4);
  EXPECT_NEAR(gap("double-ring", 16), 0.400, 5e-4);
  EXPECT_NEAR(gap("ring", 8), 0.195, 5e-4);
  EXPECT_NEAR(gap("ring-based", 8), 0.500, 5e-4);
  EXPECT_NEAR(gap("double-ring", 8), 0.400, 5e-4);
}

TEST(Graph, WeightsThatNobodyChoseFollowTheGraph) {
  EXPECT_EQ(Graph::named("ring", 4).resolve(std::nullopt), Weights::metropolis);
  EXPECT_EQ(Graph::named("exponential", 8).resolve(std::nullopt), Weights::uniform);
  EXPECT_EQ(Graph::named("ring", 4).resolve(Weights::uniform), Weights::uniform);
}

TEST(Graph, MetropolisOnADirectedGraphIsRefused) {
  const Graph directed = Graph::named("exponential", 8);
  EXPECT_THAT(message_of([&] { (void)directed.resolve(Weights::metropolis); }),
              HasSubstr("metropolis weights need a symmetric graph"));
}

TEST(Graph, DistancesFollowTheDirectionOfEdges) {
  const Graph graph(3, {{0, 1, {}}, {1, 2, {}}});
  EXPECT_EQ(graph.distance(0, 2), 2);
  EXPECT_EQ(graph.distance(2, 0), -1);
  EXPECT_FALSE(graph.is_strongly_connected());
}

TEST(Graph, LargeSparseGraphsAreBuiltAndSearched) {
  const Graph graph = Graph::named("ring-based", 16384);
  EXPECT_EQ(graph.edge_count(), 3u * 16384);
  EXPECT_TRUE(graph.is_strongly_connected());
}

TEST(GraphFile, HoldsEdgesWeightsAndComments) {
  const GraphFile file("# three in a circle\n0 1 0.25\n1 2\n\n2 0 0.5  # heavy\n");
  const Graph graph = Graph::make(file.path(), 3);
  EXPECT_THAT(graph.neighbours_in(1), ElementsAre(0));
  const Weights rule = graph.resolve(std::nullopt);
  EXPECT_EQ(graph.mixing_row(1, rule).in[0], 0.25);
  EXPECT_EQ(graph.mixing_row(1, rule).own, 0.75);
  EXPECT_EQ(graph.mixing_row(2, rule).in[0], 0.5);  // by the rule: uniform of two
  EXPECT_EQ(graph.mixing_row(0, rule).own, 0.5);
}

TEST(GraphFile, GraphsOfAsManyEdgesHaveFingerprintsOfTheirOwn) {
  const auto fingerprint = [](const std::string& text) {
    const GraphFile file(text);
    return Graph::from_file(file.path(), 4).fingerprint();
  };
  const std::uint64_t ring = fingerprint("0 1\n1 2\n2 3\n3 0\n");
  EXPECT_EQ(ring, fingerprint("3 0\n2 3 # in another order\n1 2\n0 1\n"));
  EXPECT_NE(ring, fingerprint("0 2\n2 1\n1 3\n3 0\n"));
  EXPECT_NE(ring, fingerprint("0 1\n1 2\n2 3\n3 0 0.25\n"));
}

TEST(GraphFile, EveryProblemIsNamedWithItsLine) {
  const auto complaint = [](const std::string& text) {
    const GraphFile file(text);
    return message_of([&] { Graph::from_file(file.path(), 4); });
  };
  EXPECT_THAT(complaint("0 1\n1\n"), HasSubstr("line 2: 1 fields"));
  EXPECT_THAT(complaint("0 one\n"), HasSubstr("line 1: 'one' is not a rank"));
  EXPECT_THAT(complaint("0 1 much\n"), HasSubstr("line 1: 'much' is not a weight"));
  EXPECT_THAT(complaint("0 1\n\n# no\n3 4\n"),
              HasSubstr("line 4: there is no worker 4; ranks are 0 to 3"));
  EXPECT_THAT(complaint("-1 2\n"), HasSubstr("line 1: there is no worker -1"));
  EXPECT_THAT(complaint("99999999999 2\n"), HasSubstr("line 1: '99999999999' is not a rank"));
  EXPECT_THAT(complaint("2 2\n"), HasSubstr("line 1: an edge joins worker 2 to itself"));
  EXPECT_THAT(complaint("0 1 1.5\n"), HasSubstr("line 1: the edge 0 -> 1 has weight 1.5"));
  EXPECT_THAT(complaint("0 1 nan\n"), HasSubstr("line 1: the edge 0 -> 1 has weight nan"));
  EXPECT_THAT(complaint("0 1\n1 0\n0 1\n"),
              HasSubstr("line 3: the edge 0 -> 1 stands on line 1 already"));
  EXPECT_THAT(complaint("0 1\n1 0\n"), HasSubstr("not every one of the 4 workers"));
}

TEST(GraphFile, WeightsThatLeaveNothingForTheWorkerItselfAreRefused) {
  const GraphFile file("0 1 0.6\n2 1 0.6\n1 0\n1 2\n0 2\n2 0\n");
  const Graph graph = Graph::from_file(file.path(), 3);
  EXPECT_THAT(message_of([&] { (void)graph.resolve(Weights::uniform); }),
              HasSubstr("edges to worker 1 sum to 1.2"));
}

TEST(GraphFile, AnUnknownNameSaysWhatIsAllowed) {
  const std::string message = message_of([] { Graph::make("rnig", 4); });
  EXPECT_THAT(message, HasSubstr("unknown graph 'rnig'"));
  for (const std::string_view name : Graph::names()) {
    EXPECT_THAT(message, HasSubstr(std::string(name)));
  }
}

}  // namespace
}  // namespace slip
