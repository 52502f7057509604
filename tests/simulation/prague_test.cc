// Prague's invariants (the mean conserved, an agreed end always reached) on random hosts, links,
// delays and slowdowns, and how fast its groups bring the models together.

#include "slipstream/trainer/prague.h"

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "conformance.h"
#include "consensus.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

using Generator = Prague::Generator;
using consensus::Outcome;
using consensus::Scenario;

Scenario random_scenario(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  Scenario s = consensus::random_scenario(random, seed, kind);
  Prague prague;
  prague.generator = static_cast<Generator>(random.below(5));
  prague.group_size = 2 + static_cast<int>(random.below(3));
  prague.section = 1 + static_cast<int>(random.below(3));
  const bool divides =
      prague.generator == Generator::division || prague.generator == Generator::inter_intra;
  if (divides) prague.service = random.below(2) == 0;
  if (divides && prague.service && random.below(2) == 0) {
    prague.filter = 1 + static_cast<int>(random.below(5));
  }
  if (random.below(2) == 0) prague.order = Prague::Order::parallel;
  s.protocol = consensus::make(prague);
  if (random.below(3) == 0) s.dimension = 300;  // too long to go in one shot
  return s;
}

void check(const Scenario& s) {
  const Outcome outcome = run(s);
  for (const Iteration done : outcome.done) {
    if (s.trainer.iterations != max_iteration) {
      EXPECT_EQ(done, s.trainer.iterations);
    }
    if (!s.protocol()->free_running()) {
      EXPECT_EQ(done, outcome.done[0]);
    }
  }
  for (std::size_t d = 0; d < s.dimension; ++d) {
    EXPECT_NEAR(consensus::sum_of(outcome.starts, d), consensus::sum_of(outcome.ends, d), 1e-12);
    for (const auto& x : outcome.ends) {
      EXPECT_LE(std::abs(x[d]), 1.0) << "an average left the range of what it averages";
    }
  }
}

TEST(PragueInvariants, hold_on_random_scenarios_in_the_simulator) {
  testing::for_seeds(
      500, [](std::uint64_t seed) { check(random_scenario(seed, LaunchKind::simulated)); });
}

TEST(PragueInvariants, hold_on_threads) {
  testing::for_seeds(
      20, [](std::uint64_t seed) { check(random_scenario(seed, LaunchKind::threads)); }, 20);
}

/// The sum over workers and elements of the squared distance to the mean model.
double disagreement(const Outcome& outcome, std::size_t iteration) {
  double sum = 0;
  const std::size_t dim = outcome.starts[0].size();
  for (std::size_t d = 0; d < dim; ++d) {
    double mean = 0;
    for (const auto& worker : outcome.recorded) mean += worker[iteration][d];
    mean /= static_cast<double>(outcome.recorded.size());
    for (const auto& worker : outcome.recorded) {
      sum += (worker[iteration][d] - mean) * (worker[iteration][d] - mean);
    }
  }
  return sum;
}

Outcome consensus_of(const Prague& prague, Iteration iterations, std::uint64_t seed) {
  Scenario s{.workers = 16, .protocol = consensus::make(prague), .dimension = 20};
  s.launch.kind = LaunchKind::simulated;
  s.launch.world.network.workers_per_host = 4;
  s.trainer.iterations = iterations;
  s.trainer.record_parameters = true;
  s.trainer.seed = seed;
  s.trainer.heterogeneity = Heterogeneity({"1s", {}, "", 16, seed});
  return run(s);
}

TEST(PragueContraction, four_static_phases_leave_nine_sixteenths_of_the_disagreement) {
  const Outcome outcome = consensus_of({.generator = Generator::static_}, 24, 1);
  for (std::size_t k = 11; k + 4 < 24; k += 4) {
    const double factor = std::sqrt(disagreement(outcome, k + 4) / disagreement(outcome, k));
    EXPECT_NEAR(factor, 0.5625, 1e-9) << "after iteration " << k;
  }
}

/// The factor of the expected squared disagreement in the first iteration.
double factor_of(const Prague& prague) {
  double sum = 0;
  constexpr int seeds = 300;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    Outcome outcome = consensus_of(prague, 1, seed);
    const double after = disagreement(outcome, 0);
    for (std::size_t i = 0; i < outcome.recorded.size(); ++i) {
      outcome.recorded[i][0] = outcome.starts[i];
    }
    sum += after / disagreement(outcome, 0);
  }
  return sum / seeds;
}

TEST(PragueContraction, a_random_division_contracts_as_the_closed_form_says) {
  for (const bool service : {false, true}) {
    for (const int m : {2, 4, 8}) {
      // Divided by 16, m leaves nobody over.
      const double expected = 1 - (m - 1) * 16.0 / (m * 15.0);
      const double measured = factor_of({.group_size = m, .service = service});
      EXPECT_NEAR(measured, expected, 0.05 * expected) << "groups of " << m;
    }
  }
}

TEST(Prague, ends_soon_after_the_request_though_one_worker_is_far_behind) {
  Scenario s{.workers = 8, .protocol = consensus::make(Prague{.filter = 4})};
  s.launch.kind = LaunchKind::simulated;
  s.trainer.time_limit = 100s;
  s.trainer.heterogeneity = Heterogeneity({"1s", {"rank=3,x=10"}, "", 8, 1});
  const Outcome outcome = run(s);
  EXPECT_GT(outcome.done[0], 80u);
  EXPECT_LE(outcome.done[3], 11u);
}

TEST(Prague, is_evaluated_at_one_time_though_one_worker_is_far_behind) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  launch(
      8,
      [&](World& world) {
        TrainerOptions trainer_options;
        trainer_options.iterations = 100;
        trainer_options.evaluate_every = 10;
        trainer_options.evaluate = [](ConstVectorView) { return Evaluation{}; };
        trainer_options.heterogeneity = Heterogeneity({"1s", {"rank=3,x=5"}, "", 8, 1});
        Trainer trainer(world, {{nullptr, 1}}, Prague{.filter = 4}, trainer_options);
        while (trainer.running()) {
          world.compute([] {});
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        trainer.average();
        if (world.rank() != 0) return;
        // Every tenth iteration of rank 0, once the slow worker has been at the end of its own.
        ASSERT_GE(trainer.curve().size(), 10u);
        for (std::size_t i = 1; i < trainer.curve().size(); ++i) {
          const CurvePoint& point = trainer.curve()[i];
          EXPECT_EQ(point.iteration, 10 * i);
          EXPECT_GE(point.at, point.iteration * 1s);
          EXPECT_LE(point.at, point.iteration * 1.5s + 6s);
        }
      },
      options);
}

TEST(Prague, names_who_is_missing_though_it_averages_in_the_background) {
  constexpr int absent = 3;
  std::atomic<int> ended{0}, told{0};
  LaunchOptions options;
  options.kind = LaunchKind::threads;
  options.world.wait_timeout = 1s;
  options.world.network.workers_per_host = 4;
  launch(
      4,
      [&](World& world) {
        std::vector<double> x = {1.0 * world.rank()};
        TrainerOptions run;
        run.own_start = true;
        Trainer trainer(world, {{x.data(), 1, Dtype::float64}},
                        Prague{.group_size = 4, .service = false, .order = Prague::Order::parallel},
                        run);
        if (world.rank() == absent) {
          world.bootstrap().fence(30s);  // where the others begin; it stays until they have ended
          (void)world.wait_until([&] { return ended == absent; }, world.now() + 30s, "the others");
          return;
        }
        ASSERT_TRUE(trainer.running());
        const Status status = trainer.step(trainer.gradient());
        ++ended;
        EXPECT_FALSE(status);
        EXPECT_EQ(x[0], world.rank()) << "a failed average left something behind";
        if (status.code() != Code::timeout) return;  // ended by the first to fail
        ++told;
        EXPECT_EQ(status.peer(), absent);
        EXPECT_THAT(status.message(), HasSubstr("nothing has come from rank 3"));
      },
      options);
  EXPECT_GT(told, 0);
}

TEST(Prague, an_overlapped_step_is_the_mean_less_the_gradient_of_what_went_into_it) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.world.network.workers_per_host = 2;
  launch(
      2,
      [&](World& world) {
        std::vector<double> x = {1.0 + world.rank()};
        TrainerOptions run;
        run.own_start = true;
        run.learning_rate = 0.5;
        run.iterations = 1;
        Trainer trainer(world, {{x.data(), 1, Dtype::float64}},
                        Prague{.group_size = 2, .service = false, .order = Prague::Order::parallel},
                        run);
        ASSERT_TRUE(trainer.running());
        trainer.gradient().as<double>()[0] = x[0];
        trainer.step(trainer.gradient()).throw_if_failed();
        EXPECT_EQ(x[0], 1.5 - 0.5 * (1.0 + world.rank()));
      },
      options);
}

TEST(Prague, sections_skip_averages) {
  Scenario s{.workers = 4};
  s.protocol = consensus::make(Prague{.group_size = 4, .section = 3, .service = false});
  s.launch.kind = LaunchKind::simulated;
  s.trainer.iterations = 6;
  s.trainer.record_parameters = true;
  const Outcome outcome = run(s);
  EXPECT_EQ(outcome.recorded[1][1], outcome.starts[1]);
  EXPECT_LT(disagreement(outcome, 2), 1e-20);
}

TEST(Prague, refuses_combinations_that_make_no_sense) {
  const Graph ring = Graph::named("ring", 4);
  const auto reason = [&](const Prague& prague) -> std::string {
    try {
      prague.validate({.graph = ring});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(reason({}), "");
  EXPECT_EQ(reason({.generator = Generator::inter_intra, .filter = 4}), "");
  EXPECT_EQ(reason({.generator = Generator::static_, .service = false}), "");
  EXPECT_THAT(reason({.group_size = 1}), HasSubstr("group_size"));
  EXPECT_THAT(reason({.section = 0}), HasSubstr("section"));
  EXPECT_THAT(reason({.generator = Generator::random, .filter = 4}), HasSubstr("filter is for"));
  EXPECT_THAT(reason({.filter = 4, .service = false}), HasSubstr("filter is for"));
  EXPECT_THAT(reason({.generator = Generator::buffer, .service = false}), HasSubstr("service"));
}

}  // namespace
}  // namespace slip
