// AD-PSGD's invariants on random links, delays and slowdowns: the mean conserved where both of a
// pair take it, an end always reached, and nobody held up by a slow neighbour.

#include "slipstream/trainer/ad_psgd.h"

#include <gmock/gmock.h>

#include <chrono>
#include <cmath>

#include "conformance.h"
#include "consensus.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using consensus::Outcome;
using consensus::Scenario;
using Mode = AdPsgd::Mode;
using Order = AdPsgd::Order;

void check(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  Scenario s = consensus::random_scenario(random, seed, kind);
  const AdPsgd options{random.below(2) == 0 ? Mode::bipartite : Mode::pull,
                       random.below(2) == 0 ? Order::parallel : Order::serial,
                       1 + static_cast<int>(random.below(3))};
  s.protocol = consensus::make(options);
  const Outcome outcome = run(s);
  if (s.trainer.iterations != max_iteration) {
    EXPECT_THAT(outcome.done, ::testing::Each(s.trainer.iterations));
  }
  for (std::size_t d = 0; d < s.dimension; ++d) {
    if (options.mode == Mode::bipartite) {
      EXPECT_NEAR(consensus::sum_of(outcome.starts, d), consensus::sum_of(outcome.ends, d), 1e-12);
    }
    for (const auto& x : outcome.ends) {
      EXPECT_LE(std::abs(x[d]), 1 + 1e-12) << "an average left the range of what it averages";
    }
  }
}

TEST(AdPsgdInvariants, hold_on_random_scenarios_in_the_simulator) {
  testing::for_seeds(500, [](std::uint64_t seed) { check(seed, LaunchKind::simulated); });
}

TEST(AdPsgdInvariants, hold_on_threads) {
  testing::for_seeds(
      20, [](std::uint64_t seed) { check(seed, LaunchKind::threads); }, 20);
}

double spread(const std::vector<std::vector<double>>& vectors) {
  double most = 0;
  for (const auto& x : vectors) most = std::max(most, std::abs(x[0] - vectors[0][0]));
  return most;
}

TEST(AdPsgd, brings_all_models_together_in_either_mode_and_order) {
  for (const Mode mode : {Mode::bipartite, Mode::pull}) {
    for (const Order order : {Order::parallel, Order::serial}) {
      for (const int workers : {2, 3, 5, 16}) {
        Scenario s{.workers = workers, .protocol = consensus::make(AdPsgd{mode, order})};
        s.launch.kind = LaunchKind::simulated;
        s.trainer.iterations = 60;
        s.trainer.heterogeneity = Heterogeneity({"1s,jitter=0.3", {}, "", workers, 1});
        const Outcome outcome = run(s);
        EXPECT_LT(spread(outcome.ends), 1e-3) << workers << " workers";
      }
    }
  }
}

TEST(AdPsgd, brings_all_models_together_with_local_steps_and_as_the_paper_had_it) {
  for (const Mode mode : {Mode::bipartite, Mode::pull, Mode::paper}) {
    for (const int workers : {2, 3, 16}) {
      Scenario s{.workers = workers,
                 .protocol = consensus::make(AdPsgd{.mode = mode, .local_steps = 3})};
      s.launch.kind = LaunchKind::simulated;
      s.trainer.iterations = 180;
      s.trainer.heterogeneity = Heterogeneity({"1s,jitter=0.3", {}, "", workers, 1});
      const Outcome outcome = run(s);
      EXPECT_LT(spread(outcome.ends), 1e-3) << workers << " workers";
      for (const auto& x : outcome.ends) EXPECT_LE(std::abs(x[0]), 1.0);
    }
  }
}

/// Steps that were made while a question was under way are not lost: with a constant gradient all
/// models fall by the same in every iteration, whatever they are averaged with.
TEST(AdPsgd, local_steps_count_on_top_of_the_average) {
  for (const Mode mode : {Mode::bipartite, Mode::pull}) {
    for (const Order order : {Order::parallel, Order::serial}) {
      std::vector<double> ends(4);
      LaunchOptions simulated;
      simulated.kind = LaunchKind::simulated;
      simulated.world.network.link.latency = 100ms;
      launch(
          4,
          [&](World& world) {
            TrainerOptions options;
            options.iterations = 24;
            options.learning_rate = 1;
            options.heterogeneity = Heterogeneity({"1s", {}, "", 4, 1});
            Trainer trainer(world, {{nullptr, 1, Dtype::float64}},
                            AdPsgd{.mode = mode, .order = order, .local_steps = 4}, options);
            while (trainer.running()) {
              world.compute([] {});
              trainer.gradient().as<double>()[0] = 1;
              trainer.step(trainer.gradient()).throw_if_failed();
            }
            ends[static_cast<std::size_t>(world.rank())] = trainer.parameters().as<double>()[0];
          },
          simulated);
      // Who asks averages with who is at most a round elsewhere.
      for (const double x : ends) EXPECT_NEAR(x, -24, 4);
    }
  }
}

TEST(AdPsgd, as_the_paper_had_it_nobody_waits_and_models_queue_up_at_a_slow_link) {
  Scenario s{.workers = 8, .protocol = consensus::make(AdPsgd{.mode = Mode::paper})};
  s.launch.kind = LaunchKind::simulated;
  s.launch.world.network.link = {.bytes_per_second = 50, .latency = 1ms};
  s.trainer.iterations = 100;
  s.trainer.heterogeneity = Heterogeneity({"1s", {}, "", 8, 1});
  EXPECT_THAT(run(s).done, ::testing::Each(100u));
}

TEST(AdPsgd, a_slow_neighbour_answers_while_it_computes) {
  for (const Mode mode : {Mode::bipartite, Mode::pull}) {
    Scenario s{.workers = 8, .protocol = consensus::make(AdPsgd{.mode = mode})};
    s.launch.kind = LaunchKind::simulated;
    s.launch.world.network.link.latency = 100ms;
    s.trainer.time_limit = 1000s;
    s.trainer.heterogeneity = Heterogeneity({"1s", {"rank=2,x=10"}, "", 8, 1});
    const Outcome outcome = run(s);
    for (std::size_t rank = 0; rank < 8; ++rank) {
      EXPECT_GT(outcome.done[rank], rank == 2 ? 95u : 995u) << "rank " << rank;
    }
  }
}

TEST(AdPsgd, ends_with_the_loss_of_a_neighbour) {
  Scenario s{.workers = 6, .protocol = consensus::make(AdPsgd{})};
  s.launch.kind = LaunchKind::simulated;
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

}  // namespace
}  // namespace slip
