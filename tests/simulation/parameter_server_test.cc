// The parameter server on random links, delays and slowdowns: synchronous workers stay the same,
// asynchronous ones move the servers' model, and an end is always reached.

#include "slipstream/trainer/parameter_server.h"

#include <gmock/gmock.h>

#include <chrono>
#include <cmath>
#include <vector>

#include "conformance.h"
#include "consensus.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using consensus::Outcome;
using consensus::Scenario;
using Mode = ParameterServer::Mode;
using Servers = ParameterServer::Servers;

void check(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  Scenario s = consensus::random_scenario(random, seed, kind);
  s.dimension = random.below(40);
  const ParameterServer options{random.below(2) == 0 ? Mode::synchronous : Mode::asynchronous,
                                random.below(2) == 0 ? Servers::sharded : Servers::single};
  s.protocol = consensus::make(options);
  const Outcome outcome = run(s);
  if (s.trainer.iterations != max_iteration) {
    EXPECT_THAT(outcome.done, ::testing::Each(s.trainer.iterations));
  }
  if (options.mode == Mode::synchronous) {
    EXPECT_THAT(outcome.done, ::testing::Each(outcome.done[0]));
    EXPECT_EQ(outcome.ends, outcome.starts) << "no gradient, no change";
    return;
  }
  // Nobody has changed the servers' model, each of whose parts began as its server's own.
  for (std::size_t d = 0; d < s.dimension; ++d) {
    for (const auto& x : outcome.ends) {
      EXPECT_EQ(x[d], outcome.ends[0][d]);
      EXPECT_LE(std::abs(x[d]), 1.0);
    }
  }
}

TEST(ParameterServerInvariants, hold_on_random_scenarios_in_the_simulator) {
  testing::for_seeds(500, [](std::uint64_t seed) { check(seed, LaunchKind::simulated); });
}

TEST(ParameterServerInvariants, hold_on_threads) {
  testing::for_seeds(
      20, [](std::uint64_t seed) { check(seed, LaunchKind::threads); }, 20);
}

/// f_i(x) = (x - i)^2 / 2 at worker i; every worker's model at the end.
std::vector<double> descend(const ParameterServer& options, const LaunchOptions& launch_options,
                            const Heterogeneity& heterogeneity) {
  std::vector<double> ends(6);
  launch(
      6,
      [&](World& world) {
        double x = 0;
        TrainerOptions trainer_options;
        trainer_options.learning_rate = 0.1;
        trainer_options.momentum = 0.5;
        trainer_options.iterations = 200;
        trainer_options.heterogeneity = heterogeneity;
        Trainer trainer(world, {{&x, 1, Dtype::float64}}, options, trainer_options);
        while (trainer.running()) {
          world.compute([&] { trainer.gradient().as<double>()[0] = x - world.rank(); });
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        ends[static_cast<std::size_t>(world.rank())] = x;
      },
      launch_options);
  return ends;
}

TEST(ParameterServer, synchronous_workers_have_one_model) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  for (const Servers servers : {Servers::sharded, Servers::single}) {
    const auto ends = descend({Mode::synchronous, servers}, options, {});
    EXPECT_THAT(ends, ::testing::Each(ends[0]));
    EXPECT_NEAR(ends[0], 2.5, 1e-9);
  }
}

TEST(ParameterServer, asynchronous_workers_descend_together_and_a_slow_one_holds_up_nobody) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.world.network.link.latency = 10ms;
  for (const Servers servers : {Servers::sharded, Servers::single}) {
    const auto even = descend({Mode::asynchronous, servers}, options,
                              Heterogeneity({"1s,jitter=0.05", {}, "", 6, 1}));
    for (const double x : even) EXPECT_NEAR(x, 2.5, 0.5);
    Scenario s{.workers = 6,
               .protocol = consensus::make(ParameterServer{Mode::asynchronous, servers})};
    s.launch = options;
    s.trainer.time_limit = 1000s;
    s.trainer.heterogeneity = Heterogeneity({"1s", {"rank=0,x=10"}, "", 6, 1});
    const Outcome outcome = run(s);
    for (std::size_t rank = 0; rank < 6; ++rank) {
      EXPECT_GT(outcome.done[rank], rank == 0 ? 95u : 950u) << "rank " << rank;
    }
  }
}

TEST(ParameterServer, ends_with_the_loss_of_a_server) {
  for (const Mode mode : {Mode::synchronous, Mode::asynchronous}) {
    Scenario s{.workers = 4, .protocol = consensus::make(ParameterServer{mode, Servers::single})};
    s.launch.kind = LaunchKind::simulated;
    s.launch.faults = FaultPlan{.cut_peer = 0, .cut_after = 10};
    s.trainer.time_limit = 1000s;
    s.trainer.heterogeneity = Heterogeneity({"1s", {}, "", 4, 1});
    try {
      run(s);
      ADD_FAILURE() << "nobody has noticed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::peer_lost) << error.what();
      EXPECT_EQ(error.peer(), 0);
    }
  }
}

}  // namespace
}  // namespace slip
