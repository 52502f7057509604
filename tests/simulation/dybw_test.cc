// Dynamic backup workers: the share of the time that they save, the mean that no iteration moves,
// whatever the delays, and the speed-up with the number of workers.

#include "slipstream/trainer/dybw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "conformance.h"
#include "consensus.h"
#include "slipstream/collectives/arbiter.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::for_seeds;
using Policy = Dybw::Policy;
using Threshold = Dybw::Threshold;

LaunchOptions simulated() {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.stack_bytes = 128 * 1024;
  return options;
}

// ---- What the rule saves, by how long iterations last.

struct Times {
  std::string name;
  std::function<double(Random&, int rank, int workers)> draw;  // seconds
  std::vector<double> saved;                                   // percent, by number of workers
  std::vector<double> share;                                   // of the workers that take part
};

struct Measured {
  double saved, share;
};

Measured measure(const Times& times, int workers) {
  constexpr Iteration iterations = 1500;
  std::vector<std::vector<double>> drawn(iterations, std::vector<double>(workers));
  Random random(key({11, static_cast<std::uint64_t>(workers)}));
  double longest = 0;
  for (auto& draws : drawn) {
    for (int i = 0; i < workers; ++i) draws[i] = times.draw(random, i, workers);
    longest += *std::max_element(draws.begin(), draws.end());
  }
  double seconds = 0, parts = 0;
  launch(
      workers,
      [&](World& world) {
        TrainerOptions options;
        options.graph = "chain";
        options.iterations = iterations;
        Trainer trainer(world, {{nullptr, 1, Dtype::float64}}, Dybw{.policy = Policy::abort},
                        options);
        while (trainer.running()) {
          world.set_compute_time(from_seconds(drawn[trainer.iteration()][world.rank()]));
          world.compute([] {});
          parts += trainer.superseded() ? 0 : 1;
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        seconds = to_seconds(trainer.elapsed());
      },
      simulated());
  return {100 * (1 - seconds / longest), parts / static_cast<double>(iterations) / workers};
}

TEST(DybwThreshold, SavesWhatAMonteCarloOfTheRuleSaves) {
  const auto exponential = [](Random& random, double rate) {
    return -std::log(1 - random.uniform()) / rate;
  };
  const auto slow_at = [](Random& random, bool here) {
    return random.uniform(1, 1.2) * (here ? 5 : 1);
  };
  const std::vector<double> plain = {.60, .47, .38, .28};
  const std::vector<Times> table = {
      {"Exp(1)", [&](Random& r, int, int) { return exponential(r, 1); }, {63, 76, 84, 91}, plain},
      {"1+Exp(1)",
       [&](Random& r, int, int) { return 1 + exponential(r, 1); },
       {44, 57, 65, 73},
       plain},
      {"1+Exp(4)",
       [&](Random& r, int, int) { return 1 + exponential(r, 4); },
       {24, 32, 38, 46},
       plain},
      {"Pareto(2)",
       [&](Random& r, int, int) { return 1 / std::sqrt(1 - r.uniform()); },
       {59, 73, 80, 88},
       plain},
      {"a leaf x5",
       [&](Random& r, int rank, int) { return slow_at(r, rank == 0); },
       {64, 71, 75, 78},
       {.63, .51, .41, .30}},
      {"one inside x5",
       [&](Random& r, int rank, int n) { return slow_at(r, rank == n / 2); },
       {48, 62, 69, 75},
       {.74, .58, .46, .33}}};
  const int workers[] = {6, 10, 16, 32};
  for (const Times& times : table) {
    for (std::size_t i = 0; i < std::size(workers); ++i) {
      const Measured measured = measure(times, workers[i]);
      EXPECT_NEAR(measured.saved, times.saved[i], 3) << times.name << ", " << workers[i];
      EXPECT_NEAR(measured.share, times.share[i], .03) << times.name << ", " << workers[i];
    }
  }
}

// ---- Doubly stochastic in every iteration.

void check(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  consensus::Scenario s = consensus::random_scenario(random, seed, kind);
  Dybw options;
  options.threshold = random.below(6) == 0 ? Threshold::full : Threshold::dtur;
  options.policy = static_cast<Policy>(random.below(2));
  if (options.threshold == Threshold::dtur) {
    if (random.below(2) == 0) options.slack = random.uniform(0, 2);
    if (random.below(2) == 0) options.floor = random.uniform();
  }
  s.protocol = consensus::make(options);
  const char* graphs[] = {"ring", "chain", "star", "binary-tree", "complete", "double-ring"};
  s.trainer.graph = graphs[random.below(std::size(graphs))];
  s.trainer.record_parameters = true;
  const consensus::Outcome outcome = run(s);
  for (const Iteration done : outcome.done) EXPECT_EQ(done, outcome.done.front());
  for (std::size_t element = 0; element < s.dimension; ++element) {
    const double sum = consensus::sum_of(outcome.starts, element);
    for (Iteration k = 0; k < outcome.done.front(); ++k) {
      double now = 0;
      for (const auto& worker : outcome.recorded) now += worker[k][element];
      ASSERT_NEAR(now, sum, 1e-10) << "after iteration " << k;
    }
  }
  for (const auto& x : outcome.ends) {
    for (const double value : x) EXPECT_LE(std::abs(value), 1 + 1e-12) << "a negative weight";
  }
}

TEST(DybwInvariants, hold_on_random_scenarios_in_the_simulator) {
  for_seeds(500, [](std::uint64_t seed) { check(seed, LaunchKind::simulated); });
}

TEST(DybwInvariants, hold_on_threads) {
  for_seeds(
      20, [](std::uint64_t seed) { check(seed, LaunchKind::threads); }, 20);
}

TEST(Dybw, BringsAllModelsTogether) {
  for (const Policy policy : {Policy::abort, Policy::carry}) {
    consensus::Scenario s;
    s.workers = 9;
    s.launch = simulated();
    s.protocol = consensus::make(Dybw{.policy = policy});
    s.trainer.iterations = 600;
    s.trainer.heterogeneity = Heterogeneity({"1ms,jitter=0.5", {"random,x=6,p=1/n"}, "", 9, 3});
    const consensus::Outcome outcome = run(s);
    for (const auto& x : outcome.ends) {
      EXPECT_NEAR(x[0], consensus::sum_of(outcome.starts, 0) / 9, 1e-6);
    }
  }
}

// ---- What becomes of a late gradient. Worker 2, a leaf, takes 3.5 times as long as the others.

struct Late {
  double seconds = 0;
  std::vector<Iteration> skipped, used;
};

Late with_a_slow_leaf(const Dybw& options, Iteration iterations) {
  Late late;
  late.skipped.resize(3);
  late.used.resize(3);
  launch(
      3,
      [&](World& world) {
        TrainerOptions trainer_options;
        trainer_options.graph = "chain";
        trainer_options.iterations = iterations;
        trainer_options.heterogeneity = Heterogeneity({"10ms", {"rank=2,x=3.5"}, "", 3, 1});
        Trainer trainer(world, {{nullptr, 1, Dtype::float64}}, options, trainer_options);
        while (trainer.running()) {
          world.compute([] {});
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        late.skipped[world.rank()] = world.counters().iterations_skipped.get();
        late.used[world.rank()] = world.counters().updates_used.get();
        late.seconds = to_seconds(trainer.elapsed());
      },
      simulated());
  return late;
}

TEST(Dybw, AnAbortedGradientBeginsAnew) {
  // Every second iteration needs the edge to the slow one, which begins it with the others.
  const Late late = with_a_slow_leaf({.policy = Policy::abort}, 100);
  EXPECT_NEAR(late.seconds, 50 * 0.010 + 50 * 0.035, 1e-6);
  EXPECT_EQ(late.skipped, (std::vector<Iteration>{0, 0, 0}));
  EXPECT_EQ(late.used[2], 50U);
}

TEST(Dybw, ACarriedGradientIsUsedLater) {
  const Late late = with_a_slow_leaf({.policy = Policy::carry}, 100);
  EXPECT_NEAR(late.seconds, 50 * 0.035, 1e-6) << "it never stops computing";
  EXPECT_EQ(late.skipped[2], 50U);
  EXPECT_EQ(late.used[2], 50U);
}

TEST(Dybw, SlackWaitsForWhoIsAlmostDone) {
  const Late late = with_a_slow_leaf({.policy = Policy::abort, .slack = 3}, 10);
  EXPECT_NEAR(late.seconds, 10 * 0.035, 1e-6);
  EXPECT_EQ(late.used[2], 10U) << "all take part, and nobody waits for the end of the slack";
}

TEST(Dybw, SlackEnds) {
  const Late late = with_a_slow_leaf({.policy = Policy::abort, .slack = 0.5}, 10);
  EXPECT_NEAR(late.seconds, 5 * 0.015 + 5 * 0.035, 1e-6);
}

TEST(Dybw, AFloorOfOneWaitsForAll) {
  const Late late = with_a_slow_leaf({.policy = Policy::abort, .floor = 1}, 10);
  EXPECT_NEAR(late.seconds, 10 * 0.035, 1e-6);
}

TEST(Dybw, FullWaitsForEveryNeighbour) {
  const Late late = with_a_slow_leaf({.threshold = Threshold::full}, 10);
  EXPECT_NEAR(late.seconds, 10 * 0.035, 1e-6);
  EXPECT_EQ(late.used, (std::vector<Iteration>{10, 20, 10}));
}

TEST(Dybw, AVoidIterationLeavesNoMomentum) {
  // The slow leaf's reports and the end of its iteration cross on links of 10 ms.
  LaunchOptions launch_options = simulated();
  launch_options.world.network.workers_per_host = 1;
  launch_options.world.network.link.latency = 10ms;
  launch(
      3,
      [&](World& world) {
        TrainerOptions options;
        options.graph = "chain";
        options.iterations = 40;
        options.momentum = 0.9;
        options.learning_rate = 1;
        options.heterogeneity = Heterogeneity({"100ms", {"rank=2,x=1.05"}, "", 3, 1});
        Trainer trainer(world, {{nullptr, 1, Dtype::float64}}, Dybw{.policy = Policy::abort},
                        options);
        double velocity = 0;
        while (trainer.running()) {
          world.compute([] {});
          const Iteration used = world.counters().updates_used.get();
          trainer.gradient().as<double>()[0] = 1;
          trainer.step(trainer.gradient()).throw_if_failed();
          if (world.counters().updates_used.get() > used) velocity = 0.9 * velocity + 1;
          double kept = 0;
          std::memcpy(&kept, trainer.checkpoint().velocities.at(0).data(), sizeof kept);
          ASSERT_DOUBLE_EQ(kept, velocity) << world.rank() << " in " << trainer.iteration();
        }
        if (world.rank() == 2) {
          EXPECT_LT(world.counters().updates_used.get(), 40U) << "nothing was void";
        }
      },
      launch_options);
}

// ---- Linear speed-up: f(x) = |x|^2 / 2 with noise in the gradients.

/// Iterations until the mean model stays within the loss, at the best learning rate.
double iterations_to_loss(int workers) {
  constexpr int dimension = 400;
  constexpr double start = 0.35, noise = 0.35, target = 0.1;  // 24.5 at the start
  double best = 1e9;
  for (const double rate : {0.0025, 0.0035, 0.005, 0.007, 0.01}) {
    const double learning_rate = rate * workers;
    const auto iterations = static_cast<Iteration>(12 / learning_rate);
    std::vector<std::vector<std::vector<double>>> recorded(static_cast<std::size_t>(workers));
    launch(
        workers,
        [&](World& world) {
          TrainerOptions options;
          options.iterations = iterations;
          options.learning_rate = learning_rate;
          options.record_parameters = true;
          options.heterogeneity =
              Heterogeneity({"10ms,jitter=0.1", {"random,x=6,p=0.01"}, "", workers, 5});
          std::vector<double> x(dimension, start);
          Trainer trainer(world, {{x.data(), x.size(), Dtype::float64}}, Dybw{.slack = 0.25},
                          options);
          while (trainer.running()) {
            world.compute([] {});
            Random random(key({3, static_cast<std::uint64_t>(world.rank()), trainer.iteration()}));
            const auto g = trainer.gradient().as<double>();
            for (int i = 0; i < dimension; ++i) {
              g[i] = trainer.parameters().as<double>()[i] + noise * random.normal();
            }
            trainer.step(trainer.gradient()).throw_if_failed();
          }
          recorded[static_cast<std::size_t>(world.rank())] = trainer.recorded_parameters();
        },
        simulated());
    for (Iteration k = 0; k < iterations; ++k) {
      double loss = 0;
      for (int i = 0; i < dimension; ++i) {
        double mean = 0;
        for (const auto& worker : recorded) mean += worker[k][i] / workers;
        loss += mean * mean / 2;
      }
      if (loss > target) continue;
      best = std::min(best, static_cast<double>(k + 1));
      break;
    }
  }
  return best;
}

TEST(Dybw, TwiceTheWorkersNeedAlmostHalfTheIterations) {
  double before = iterations_to_loss(2);
  for (int workers = 4; workers <= 16; workers *= 2) {
    const double now = iterations_to_loss(workers);
    EXPECT_GE(before / now, 1.7) << workers << " workers: " << before << " to " << now;
    before = now;
  }
}

TEST(Arbiter, ReportsThatMakeNoSenseEndTheRun) {
  const auto lies = [](const std::function<void(Arbiter&)>& say) {
    try {
      launch(
          2,
          [&](World& world) {
            Arbiter arbiter(world, "arbiter", {.tree = {{0, 1}}});
            arbiter.begin(3).throw_if_failed();
            if (world.rank() == 1) {
              say(arbiter);
              return;
            }
            const auto never_sealed = [&] { return arbiter.ready(); };
            world.wait_until(never_sealed, world.deadline(), "a seal").throw_if_failed();
          },
          simulated());
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const std::string said = "arbiter: a report of rank 1 makes no sense";
  EXPECT_EQ(lies([](Arbiter& arbiter) { (void)arbiter.finished(4); }), said) << "not open yet";
  EXPECT_EQ(lies([](Arbiter& arbiter) {
              (void)arbiter.finished(3);
              (void)arbiter.finished(3);
            }),
            said)
      << "twice";
}

TEST(Dybw, refuses_directed_graphs_and_options_out_of_range) {
  const Graph directed = Graph::named("exponential", 8), ring = Graph::named("ring", 4);
  EXPECT_THROW(Dybw().validate({.graph = directed}), Error);
  EXPECT_THROW(Dybw{.floor = 1.5}.validate({.graph = ring}), Error);
  EXPECT_THROW(Dybw{.slack = -1}.validate({.graph = ring}), Error);
  EXPECT_THROW((Dybw{.threshold = Threshold::full, .slack = 1}.validate({.graph = ring})), Error);
  EXPECT_NO_THROW(Dybw().validate({.graph = ring}));
}

}  // namespace
}  // namespace slip
