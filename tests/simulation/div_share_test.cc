// DivShare: exact where it can be, invariants on random links, delays, losses and slowdowns, and
// nobody ever held up.

#include "slipstream/trainer/div_share.h"

#include <gmock/gmock.h>

#include <chrono>

#include "conformance.h"
#include "consensus.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using consensus::Outcome;
using consensus::Scenario;
using consensus::spread;
using Order = FragmentMap::Order;

void check(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  Scenario s = consensus::random_scenario(random, seed, kind);
  const double fractions[] = {1, 0.5, 0.3};
  const DivShare options{.fraction = fractions[random.below(3)],
                         .fanout = 1 + static_cast<int>(random.below(4)),
                         .flush = random.below(2) == 0,
                         .local_steps = 1 + static_cast<int>(random.below(3)),
                         .map = random.below(2) == 0 ? Order::blocks : Order::shuffled};
  s.protocol = consensus::make(options);
  consensus::lose_some(random, s);
  consensus::expect_averages(s, run(s));
}

TEST(DivShareInvariants, hold_on_random_scenarios_in_the_simulator) {
  testing::for_seeds(500, [](std::uint64_t seed) { check(seed, LaunchKind::simulated); });
}

TEST(DivShareInvariants, hold_on_threads) {
  testing::for_seeds(
      20, [](std::uint64_t seed) { check(seed, LaunchKind::threads); }, 20);
}

Scenario simulated(int workers, const DivShare& options) {
  Scenario s{.workers = workers, .protocol = consensus::make(options)};
  s.launch.kind = LaunchKind::simulated;
  s.dimension = 10;
  return s;
}

/// The last of a round of workers has everybody's fragments, and so the mean of all, however they
/// are cut.
TEST(DivShare, sent_to_everybody_is_the_exact_mean) {
  for (const double fraction : {1.0, 0.5, 0.1}) {
    for (const Order map : {Order::blocks, Order::shuffled}) {
      Scenario s = simulated(5, {.fraction = fraction, .fanout = 4, .map = map});
      s.trainer.iterations = 1;
      s.launch.world.network.link.latency = 1ms;
      // One after the other; what is sent arrives in between.
      s.trainer.heterogeneity =
          Heterogeneity({"1s", {"rank=1,x=2", "rank=2,x=3", "rank=3,x=4", "rank=4,x=5"}, "", 5, 1});
      const Outcome outcome = run(s);
      for (std::size_t d = 0; d < s.dimension; ++d) {
        for (std::size_t last = 0; last < 5; ++last) {
          double sum = 0;
          for (std::size_t i = 0; i <= last; ++i) sum += outcome.starts[i][d];
          EXPECT_NEAR(outcome.ends[last][d], sum / static_cast<double>(last + 1), 1e-12)
              << "fraction " << fraction << ", rank " << last;
        }
      }
    }
  }
}

TEST(DivShare, a_lost_fragment_does_not_count) {
  Scenario s = simulated(3, {.fraction = 0.1, .fanout = 2});
  s.trainer.iterations = 1;
  s.launch.world.network.link.latency = 1ms;
  s.trainer.heterogeneity = Heterogeneity({"1s", {"rank=2,x=2"}, "p=0.4", 3, 1});
  const Outcome outcome = run(s);
  int lost = 0;
  for (std::size_t d = 0; d < 10; ++d) {
    double sum = outcome.starts[2][d], count = 1;
    for (const int sender : {0, 1}) {
      if (s.trainer.heterogeneity.drops(2, sender, 0, d)) {
        ++lost;
        continue;
      }
      sum += outcome.starts[static_cast<std::size_t>(sender)][d];
      ++count;
    }
    EXPECT_NEAR(outcome.ends[2][d], sum / count, 1e-12) << "fragment " << d;
  }
  EXPECT_GT(lost, 0);
}

TEST(DivShare, brings_all_models_together_whatever_the_options) {
  for (const double fraction : {1.0, 0.2}) {
    for (const bool flush : {true, false}) {
      for (const int workers : {2, 5, 16}) {
        Scenario s = simulated(workers, {.fraction = fraction, .fanout = 2, .flush = flush});
        s.trainer.iterations = 60;
        s.trainer.heterogeneity = Heterogeneity({"1s,jitter=0.3", {}, "", workers, 1});
        EXPECT_LT(spread(run(s)), 1e-3) << workers << " workers, fraction " << fraction;
      }
    }
  }
}

TEST(DivShare, nobody_waits_for_a_slow_worker_or_link) {
  consensus::expect_nobody_waits(simulated(8, {}), 100);
}

TEST(DivShare, local_steps_send_nothing_in_between) {
  const auto messages = [](int steps) {
    Scenario s = simulated(3, {.fraction = 0.5, .fanout = 1, .local_steps = steps});
    s.trainer.iterations = 12;
    s.trainer.heterogeneity = Heterogeneity({"1s", {}, "", 3, 1});
    Outcome outcome;
    s.trainer.record_parameters = true;
    outcome = run(s);
    int changes = 0;  // of the models, by averaging
    for (std::size_t k = 1; k < 12; ++k) {
      changes += outcome.recorded[0][k] != outcome.recorded[0][k - 1];
    }
    return changes;
  };
  EXPECT_LE(messages(4), 3);
  EXPECT_GT(messages(1), 3);
}

TEST(DivShare, ends_with_the_loss_of_a_peer) {
  Scenario s = simulated(6, {});
  s.launch.faults = FaultPlan{.cut_peer = 2, .cut_after = 10};
  s.trainer.time_limit = 1000s;
  s.trainer.heterogeneity = Heterogeneity({"1s", {}, "", 6, 1});
  try {
    run(s);
    ADD_FAILURE() << "nobody has noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::peer_lost) << error.what();
    EXPECT_EQ(error.peer(), 2);
  }
}

TEST(DivShare, cuts_no_more_fragments_than_there_are_parameters) {
  Scenario s = simulated(4, {.fraction = 0.01});
  s.dimension = 1;
  s.trainer.iterations = 60;
  s.trainer.heterogeneity = Heterogeneity({"1s,jitter=0.3", {}, "", 4, 1});
  EXPECT_LT(spread(run(s)), 1e-3);
}

TEST(DivShare, refuses_options_without_a_meaning) {
  const Graph graph = Graph::named("ring", 4);
  EXPECT_NO_THROW(DivShare{.fraction = 0.1}.validate({.graph = graph, .parameters = 10}));
  EXPECT_THROW(DivShare{.fraction = 0}.validate({.graph = graph, .parameters = 10}), Error);
  EXPECT_THROW(DivShare{.fraction = 2}.validate({.graph = graph, .parameters = 10}), Error);
  EXPECT_THROW(DivShare{.fanout = 0}.validate({.graph = graph, .parameters = 10}), Error);
  EXPECT_THROW(DivShare{.local_steps = 0}.validate({.graph = graph, .parameters = 10}), Error);
}

}  // namespace
}  // namespace slip
