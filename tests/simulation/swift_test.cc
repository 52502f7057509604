// SWIFT: its weights, its use of old models, and its invariants on random links, delays, losses and
// slowdowns.

#include "slipstream/trainer/swift.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "conformance.h"
#include "consensus.h"

namespace slip {
namespace {

using consensus::Outcome;
using consensus::Scenario;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using Variant = Swift::Variant;

void check(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  Scenario s = consensus::random_scenario(random, seed, kind);
  const Swift options{random.below(2) == 0 ? Variant::strong : Variant::paper,
                      1 + static_cast<int>(random.below(3))};
  s.protocol = consensus::make(options);
  const char* graphs[] = {"ring", "chain", "star", "ring-based", "complete"};
  s.trainer.graph = graphs[random.below(std::size(graphs))];
  consensus::lose_some(random, s);
  consensus::expect_averages(s, run(s));
}

TEST(SwiftInvariants, hold_on_random_scenarios_in_the_simulator) {
  testing::for_seeds(500, [](std::uint64_t seed) { check(seed, LaunchKind::simulated); });
}

TEST(SwiftInvariants, hold_on_threads) {
  testing::for_seeds(
      20, [](std::uint64_t seed) { check(seed, LaunchKind::threads); }, 20);
}

Scenario simulated(int workers, const Swift& options) {
  Scenario s{.workers = workers, .protocol = consensus::make(options)};
  s.launch.kind = LaunchKind::simulated;
  return s;
}

TEST(Swift, averages_with_an_old_model_again_where_no_newer_has_come) {
  Scenario s = simulated(2, {});
  s.trainer.iterations = 3;
  s.trainer.record_parameters = true;
  s.trainer.heterogeneity = Heterogeneity({"1s", {"rank=1,x=10"}, "", 2, 1});
  const Outcome outcome = run(s);
  const double slow = outcome.starts[1][0];
  double x = outcome.starts[0][0];
  for (std::size_t k = 0; k < 3; ++k) {
    x = (x + slow) / 2;
    EXPECT_NEAR(outcome.recorded[0][k][0], x, 1e-15) << k;
  }
  // The other one meets the newest that the first has sent, which is not the first.
  EXPECT_NEAR(outcome.recorded[1][0][0], (slow + outcome.recorded[0][1][0]) / 2, 1e-15);
}

TEST(Swift, brings_all_models_together_in_either_variant) {
  for (const Variant variant : {Variant::strong, Variant::paper}) {
    for (const int workers : {2, 3, 8}) {
      Scenario s = simulated(workers, {variant, 1});
      s.trainer.iterations = 400;
      s.trainer.graph = "ring-based";
      s.trainer.heterogeneity = Heterogeneity({"1s,jitter=0.3", {}, "", workers, 1});
      EXPECT_LT(consensus::spread(run(s)), 1e-3) << workers << " workers";
    }
  }
}

TEST(Swift, nobody_waits_for_a_slow_worker_or_link) {
  for (const Variant variant : {Variant::strong, Variant::paper}) {
    consensus::expect_nobody_waits(simulated(8, {variant, 1}), 50);
  }
}

TEST(SwiftWeights, are_those_of_worked_examples) {
  const auto near = [](double value) { return DoubleNear(value, 1e-12); };
  const Graph ring = Graph::named("ring", 6);
  EXPECT_THAT(swift_weights(ring, 2), ElementsAre(near(1.0 / 3), near(1.0 / 3)));
  // The centre gives a fifth to each; who knows only the centre has nothing to add.
  const Graph star = Graph::named("star", 5);
  EXPECT_THAT(swift_weights(star, 0), ::testing::Each(near(0.2)));
  EXPECT_THAT(swift_weights(star, 3), ElementsAre(near(0.2)));
  // 0 has three neighbours: a quarter each. 1 and 2 share the rest of theirs, 3/4, with each other.
  const Graph kite(4, {{0, 1, {}},
                       {1, 0, {}},
                       {0, 2, {}},
                       {2, 0, {}},
                       {0, 3, {}},
                       {3, 0, {}},
                       {1, 2, {}},
                       {2, 1, {}}});
  EXPECT_THAT(swift_weights(kite, 1), ElementsAre(near(0.25), near(0.375)));
  EXPECT_THAT(swift_weights(kite, 2), ElementsAre(near(0.25), near(0.375)));
  EXPECT_THAT(swift_weights(kite, 3), ElementsAre(near(0.25)));
}

TEST(SwiftWeights, are_symmetric_and_leave_something_to_the_worker) {
  for (const std::string_view name : Graph::names()) {
    const Graph graph = Graph::named(name, 12);
    if (!graph.is_symmetric()) continue;
    for (int rank = 0; rank < 12; ++rank) {
      const auto weights = swift_weights(graph, rank);
      EXPECT_LT(std::accumulate(weights.begin(), weights.end(), 0.0), 1) << name;
      const auto peers = graph.neighbours_in(rank);
      for (std::size_t i = 0; i < peers.size(); ++i) {
        const auto theirs = graph.neighbours_in(peers[i]);
        const auto place = std::ranges::find(theirs, rank) - theirs.begin();
        EXPECT_EQ(weights[i], swift_weights(graph, peers[i])[static_cast<std::size_t>(place)])
            << name;
        EXPECT_GT(weights[i], 0);
      }
    }
  }
}

TEST(Swift, refuses_directed_graphs_for_the_papers_weights) {
  const Graph directed = Graph::named("exponential", 8);
  EXPECT_THROW(Swift{Variant::paper}.validate({.graph = directed}), Error);
  EXPECT_NO_THROW(Swift{}.validate({.graph = directed}));
  EXPECT_THROW((Swift{Variant::strong, 0}.validate({.graph = directed})), Error);
}

}  // namespace
}  // namespace slip
