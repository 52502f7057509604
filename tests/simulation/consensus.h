#pragma once

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/trainer/trainer.h"

/// Runs of a protocol with zero gradients and random starts: what tests of its averaging share.
namespace slip::consensus {

struct Scenario {
  int workers = 1;
  std::function<std::unique_ptr<ProtocolConfig>()> protocol = {};
  LaunchOptions launch = {};
  TrainerOptions trainer = {};
  std::size_t dimension = 3;
  /// Whether that worker asks for the end in that iteration, which it may skip.
  std::function<bool(int rank, Iteration k)> stops = [](int, Iteration) { return false; };
};

template <class P>
std::function<std::unique_ptr<ProtocolConfig>()> make(const P& options) {
  return [options] { return std::make_unique<ProtocolConfigOf<P>>(options); };
}

/// By worker.
struct Outcome {
  std::vector<std::vector<double>> starts, ends;  // within -1 and 1
  std::vector<Iteration> done;
  std::vector<std::vector<std::vector<double>>> recorded;  // by iteration
};

inline Outcome run(const Scenario& s) {
  const auto n = static_cast<std::size_t>(s.workers);
  const std::vector<std::vector<double>> vectors(n, std::vector<double>(s.dimension));
  Outcome outcome{vectors, vectors, std::vector<Iteration>(n), {}};
  outcome.recorded.resize(n);
  launch(
      s.workers,
      [&](World& world) {
        const auto me = static_cast<std::size_t>(world.rank());
        std::vector<double>& x = outcome.ends[me];
        Random random(key({99, s.trainer.seed, me}));
        for (double& value : x) value = random.uniform(-1, 1);
        outcome.starts[me] = x;
        TrainerOptions options = s.trainer;
        options.own_start = true;
        Trainer trainer(world, {{x.data(), x.size(), Dtype::float64}}, s.protocol(), options);
        while (trainer.running()) {
          if (s.stops(world.rank(), trainer.iteration())) trainer.stop();
          world.compute([] {});
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        outcome.done[me] = trainer.iterations_done();
        outcome.recorded[me] = trainer.recorded_parameters();
      },
      s.launch);
  return outcome;
}

/// The sum over the workers of an element.
inline double sum_of(const std::vector<std::vector<double>>& vectors, std::size_t element) {
  double sum = 0;
  for (const std::vector<double>& vector : vectors) sum += vector[element];
  return sum;
}

/// The furthest that a worker has ended from the first one, in any element.
inline double spread(const Outcome& outcome) {
  double most = 0;
  for (const std::vector<double>& x : outcome.ends) {
    for (std::size_t d = 0; d < x.size(); ++d) {
      most = std::max(most, std::abs(x[d] - outcome.ends[0][d]));
    }
  }
  return most;
}

/// Of protocols that average with what has arrived: all iterations are done, and none has left the
/// range of what there was to average.
inline void expect_averages(const Scenario& s, const Outcome& outcome) {
  if (s.trainer.iterations != max_iteration) {
    EXPECT_THAT(outcome.done, ::testing::Each(s.trainer.iterations));
  }
  for (std::size_t d = 0; d < s.dimension; ++d) {
    double low = 1, high = -1;
    for (const std::vector<double>& start : outcome.starts) {
      low = std::min(low, start[d]);
      high = std::max(high, start[d]);
    }
    for (const std::vector<double>& x : outcome.ends) {
      EXPECT_GE(x[d], low - 1e-12) << "an average left the range of what it averages";
      EXPECT_LE(x[d], high + 1e-12) << "an average left the range of what it averages";
    }
  }
}

/// Eight workers for 1000 s, one of them ten times slower than the others' second per iteration,
/// and another behind a link that is twenty times slower.
inline void expect_nobody_waits(Scenario s, double bytes_per_second) {
  using namespace std::chrono_literals;
  s.workers = 8;
  s.launch.world.network.link = {.bytes_per_second = bytes_per_second, .latency = 100ms};
  s.launch.world.network.slow = {{3, 20}};
  s.trainer.time_limit = 1000s;
  s.trainer.heterogeneity = Heterogeneity({"1s", {"rank=2,x=10"}, "", s.workers, 1});
  const Outcome outcome = run(s);
  for (std::size_t rank = 0; rank < outcome.done.size(); ++rank) {
    EXPECT_GE(outcome.done[rank], rank == 2 ? 100u : 1000u) << "rank " << rank;
  }
}

/// Delays, links, slow workers, and an end by a number of iterations, by time or on request; the
/// protocol is left to the caller, who may go on drawing.
inline Scenario random_scenario(Random& random, std::uint64_t seed, LaunchKind kind) {
  Scenario s;
  const bool on_threads = kind == LaunchKind::threads;
  s.workers = 1 + static_cast<int>(random.below(on_threads ? 6 : 12));
  s.launch.kind = kind;
  s.launch.stack_bytes = 128 * 1024;
  sim::NetworkOptions& network = s.launch.world.network;
  network.workers_per_host = 1 + static_cast<int>(random.below(5));
  if (!on_threads) {
    network.link.latency = from_seconds(random.uniform(0, 2e-3));
    network.link.bytes_per_second = random.below(2) == 0 ? 0 : 1e5;
  }
  if (random.below(2) == 0) {
    s.launch.faults = FaultPlan{.seed = seed,
                                .delay_probability = random.uniform(),
                                .max_delay = from_seconds(random.uniform(0, 5e-3))};
  }
  s.trainer.seed = seed;
  s.trainer.iterations = max_iteration;
  s.trainer.heterogeneity =
      Heterogeneity({"1ms,jitter=0.5", {"random,x=6,p=1/n"}, "", s.workers, seed});
  switch (random.below(3)) {
    case 0:
      s.trainer.iterations = 5 + random.below(25);
      break;
    case 1:
      s.trainer.time_limit = from_seconds(random.uniform(1e-3, 30e-3));
      break;
    case 2: {
      const int who = static_cast<int>(random.below(static_cast<std::uint64_t>(s.workers)));
      const Iteration when = random.below(20);
      s.stops = [who, when](int rank, Iteration k) { return rank == who && k >= when; };
      break;
    }
  }
  return s;
}

/// Half of them lose messages: of protocols that go on without.
inline void lose_some(Random& random, Scenario& s) {
  if (random.below(2) != 0) return;
  s.trainer.heterogeneity =
      Heterogeneity({"1ms,jitter=0.5", {"random,x=6,p=1/n"}, "p=0.2", s.workers, s.trainer.seed});
}

}  // namespace slip::consensus
