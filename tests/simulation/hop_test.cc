// Hop's invariants (the paper's bounds of the gap, with and without tokens; every update used for
// the iteration that it is of; the mean conserved; all end in the same iteration; a lost worker
// hangs nobody) on random graphs, delays, partitions and slowdowns.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

/// A ring through all workers in random order, and some more edges.
std::shared_ptr<const Graph> random_graph(int workers, bool symmetric, Random& random) {
  std::vector<int> order(static_cast<std::size_t>(workers));
  for (int i = 0; i < workers; ++i) order[static_cast<std::size_t>(i)] = i;
  shuffle(order, random);
  std::set<std::pair<int, int>> edges;
  const auto add = [&](int from, int to) {
    if (from == to) return;
    edges.emplace(from, to);
    if (symmetric) edges.emplace(to, from);
  };
  for (std::size_t i = 0; i < order.size(); ++i) add(order[i], order[(i + 1) % order.size()]);
  const std::uint64_t more = random.below(static_cast<std::uint64_t>(workers) + 1);
  for (std::uint64_t i = 0; i < more; ++i) {
    add(static_cast<int>(random.below(static_cast<std::uint64_t>(workers))),
        static_cast<int>(random.below(static_cast<std::uint64_t>(workers))));
  }
  std::vector<Edge> list;
  for (const auto& [from, to] : edges) list.push_back({from, to, {}});
  return std::make_shared<const Graph>(workers, list);
}

struct Scenario {
  int workers;
  bool symmetric;
  Hop hop;
  Iteration iterations;
  std::optional<std::pair<int, Iteration>> stop;  // who asks for the end, and in which iteration
  std::shared_ptr<const Graph> graph;
  LaunchOptions launch;
  HeterogeneityOptions heterogeneity;
};

Scenario random_scenario(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  Scenario s;
  s.workers = 2 + static_cast<int>(random.below(7));
  s.symmetric = random.below(2) == 0;
  s.graph = random_graph(s.workers, s.symmetric, random);
  s.iterations = 10 + random.below(20);
  if (random.below(2) == 0) {
    s.stop = {static_cast<int>(random.below(static_cast<std::uint64_t>(s.workers))),
              random.below(s.iterations)};
  }
  s.hop.max_gap = 1 + static_cast<int>(random.below(5));
  s.hop.order = random.below(2) == 0 ? Hop::Order::parallel : Hop::Order::serial;
  switch (random.below(4)) {
    case 0:
      break;
    case 1:
      s.hop.backup = 1 + static_cast<int>(random.below(2));
      break;
    case 2:
      s.hop.staleness = static_cast<int>(random.below(4));
      break;
    case 3:
      s.hop.notify_ack = true;
      break;
  }
  if ((s.hop.backup > 0 || s.hop.staleness) && random.below(2) == 0) {
    s.hop.max_jump = 2 + static_cast<int>(random.below(9));
  }
  s.launch.kind = kind;
  const bool simulated = kind == LaunchKind::simulated;
  if (simulated) {
    s.launch.world.network.link.latency = from_seconds(random.uniform(0, 2e-3));
    s.launch.world.network.link.bytes_per_second = random.below(2) == 0 ? 0 : 1e5;
    s.hop.tokens = s.hop.notify_ack || s.hop.max_jump > 0 || random.below(4) > 0;
  }
  if (random.below(2) == 0) {
    FaultPlan faults;
    faults.seed = seed;
    faults.delay_probability = random.uniform();
    faults.max_delay = from_seconds(random.uniform(0, 5e-3));
    if (random.below(2) == 0) {
      const Time begin = from_seconds(random.uniform(0, 30e-3));
      const int island = static_cast<int>(random.below(static_cast<std::uint64_t>(s.workers)));
      faults.partitions = {{begin, begin + from_seconds(random.uniform(0, 20e-3)), {island}}};
    }
    s.launch.faults = faults;
  }
  s.heterogeneity = {"1ms,jitter=0.5", {"random,x=6,p=1/n"}, "", s.workers, seed};
  if (random.below(2) == 0) s.heterogeneity.slow.push_back("rank=0,x=4");
  return s;
}

/// The bound of Iter(i) - Iter(j) that the scenario's mode promises (Hop, section 3 and 4).
int gap_bound(const Scenario& s, int i, int j) {
  constexpr int unbounded = std::numeric_limits<int>::max();
  const int to = s.graph->distance(j, i);
  const int from = s.graph->distance(i, j);
  if (s.hop.notify_ack) return std::min(to, 2 * from);
  const int by_tokens = s.hop.tokens ? s.hop.max_gap * from : unbounded;
  // Where updates may be missing, or jumped over, only the tokens bound the gap.
  const bool all_received = s.hop.backup == 0 && s.hop.max_jump == 0;
  const int by_updates = all_received ? (s.hop.staleness.value_or(0) + 1) * to : unbounded;
  return std::min(by_tokens, by_updates);
}

constexpr std::size_t dimension = 3;

/// Runs the scenario with zero gradients and random starts, and checks as it goes.
void check(const Scenario& s) {
  const auto n = static_cast<std::size_t>(s.workers);
  // Entered iterations, counted; each written by its worker alone. Reading another's later than
  // it was can only make a gap look smaller, so a violation is real on threads, too.
  std::vector<std::atomic<std::int64_t>> entered(n);
  // On threads a worker's tokens may be seen before it has written down how far they let it: one
  // iteration further, or a jump.
  const int jump = s.hop.max_jump > 0 ? std::min(s.hop.max_jump, s.hop.max_gap + 1) : 1;
  const int slack = s.launch.kind == LaunchKind::threads ? jump : 0;
  std::vector<std::vector<double>> ends(n);
  std::vector<double> starts(n * dimension);
  std::vector<Iteration> done(n);
  std::vector<std::vector<std::int64_t>> bound(n, std::vector<std::int64_t>(n));
  for (int i = 0; i < s.workers; ++i) {
    for (int j = 0; j < s.workers; ++j) {
      bound[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] = gap_bound(s, i, j);
    }
  }
  launch(
      s.workers,
      [&](World& world) {
        const auto me = static_cast<std::size_t>(world.rank());
        Random random(key({99, me}));
        std::vector<double> x(dimension);
        for (double& value : x) value = random.uniform(-1, 1);
        std::copy(x.begin(), x.end(), starts.begin() + static_cast<std::ptrdiff_t>(me * dimension));
        TrainerOptions options;
        options.shared_graph = s.graph;
        options.iterations = s.iterations;
        options.own_start = true;
        options.heterogeneity = Heterogeneity(s.heterogeneity);
        Trainer trainer(world, {{x.data(), dimension, Dtype::float64}}, s.hop, options);
        Iteration before = 0;
        while (trainer.running()) {
          const Iteration k = trainer.iteration();
          entered[me].store(static_cast<std::int64_t>(k));
          for (std::size_t j = 0; j < n; ++j) {
            if (j == me) continue;
            EXPECT_LE(static_cast<std::int64_t>(k) - entered[j].load(), bound[me][j] + slack)
                << "worker " << me << " in iteration " << k << ", worker " << j;
          }
          if (k > before + 1) {  // it jumped
            EXPECT_LE(k - before, static_cast<Iteration>(s.hop.max_jump));
            EXPECT_LE(k - before, static_cast<Iteration>(s.hop.max_gap) + 1);
            for (const int o : s.graph->neighbours_out(world.rank())) {
              EXPECT_GE(entered[static_cast<std::size_t>(o)].load() + slack,
                        static_cast<std::int64_t>(k))
                  << "worker " << me << " jumped past its receiver " << o;
            }
          }
          before = k;
          if (s.stop && s.stop->first == world.rank() && k >= s.stop->second) trainer.stop();
          world.compute([] {});
          const Status status = trainer.step(trainer.gradient());
          ASSERT_TRUE(status.ok()) << status.message();
        }
        // Finished: past everything, for those who look.
        entered[me].store(static_cast<std::int64_t>(s.iterations));
        done[me] = trainer.iterations_done();
        ends[me] = x;
      },
      s.launch);
  for (const Iteration iterations : done) EXPECT_EQ(iterations, done.front());
  if (s.stop) {
    EXPECT_GT(done.front(), std::min(s.stop->second, s.iterations - 1));
    EXPECT_LE(done.front(), s.iterations);
  } else {
    EXPECT_EQ(done.front(), s.iterations);
  }
  const bool conserves = s.symmetric && s.hop.backup == 0 && !s.hop.staleness;
  for (std::size_t d = 0; d < dimension; ++d) {
    double first = 0;
    double last = 0;
    for (std::size_t i = 0; i < n; ++i) {
      first += starts[i * dimension + d] / static_cast<double>(n);
      last += ends[i][d] / static_cast<double>(n);
      EXPECT_LE(std::abs(ends[i][d]), 1.0) << "an average left the range of what it averages";
    }
    if (conserves) {
      EXPECT_NEAR(first, last, 1e-12);
    }
  }
}

TEST(HopInvariants, HoldOnRandomGraphsDelaysAndModesInTheSimulator) {
  testing::for_seeds(
      400, [](std::uint64_t seed) { check(random_scenario(seed, LaunchKind::simulated)); });
}

/// Models that say whose they are, and of which iteration: element j is the iteration + 1 of worker
/// j's model, and element workers + j its share.
class Signed {
 public:
  Signed(const Scenario& s, int rank)
      : s_(s), rank_(static_cast<std::size_t>(rank)), last_(workers(), -1) {}

  std::size_t workers() const { return static_cast<std::size_t>(s_.workers); }

  void sign(VectorView x, Iteration k) const {
    std::ranges::fill(x.as<double>(), 0.0);
    x.as<double>()[rank_] = static_cast<double>(k + 1);
    x.as<double>()[workers() + rank_] = 1;
  }

  /// `x` is what iteration k has averaged.
  void check(VectorView x, Iteration k) {
    for (std::size_t j = 0; j < workers(); ++j) {
      const double share = x.as<double>()[workers() + j];
      const std::span<const int> in = s_.graph->neighbours_in(static_cast<int>(rank_));
      const bool known = j == rank_ || std::binary_search(in.begin(), in.end(), j);
      const bool needed = known && s_.hop.backup == 0 && !s_.hop.staleness;
      ASSERT_TRUE(share == 0 ? !needed : known) << where(j, k);
      if (share == 0) continue;
      const double tag = x.as<double>()[j] / share - 1;
      const double staleness = j == rank_ ? 0 : s_.hop.staleness.value_or(0);
      ASSERT_NEAR(tag, std::round(tag), 1e-6) << where(j, k) << " is of several iterations";
      ASSERT_GT(tag, static_cast<double>(k) - staleness - 0.5) << where(j, k);
      // A stale update may be used again, but no older one; without staleness each is used for k.
      ASSERT_GT(tag, last_[j] - 0.5) << where(j, k);
      if (!s_.hop.staleness || j == rank_) {
        ASSERT_NEAR(tag, static_cast<double>(k), 1e-6) << where(j, k);
      }
      last_[j] = tag;
    }
  }

 private:
  std::string where(std::size_t sender, Iteration k) const {
    return "rank " + std::to_string(rank_) + ", iteration " + std::to_string(k) +
           ": the update of rank " + std::to_string(sender);
  }

  const Scenario& s_;
  const std::size_t rank_;
  std::vector<double> last_;
};

TEST(HopInvariants, UpdatesAreUsedForTheIterationThatTheyAreOf) {
  testing::for_seeds(400, [](std::uint64_t seed) {
    Scenario s = random_scenario(seed, LaunchKind::simulated);
    s.hop.max_jump = 0;  // who jumps sends what it has averaged
    launch(
        s.workers,
        [&](World& world) {
          Signed models(s, world.rank());
          std::vector<double> x(2 * models.workers());
          const VectorView view{x.data(), x.size(), Dtype::float64};
          models.sign(view, 0);
          TrainerOptions options;
          options.shared_graph = s.graph;
          options.iterations = s.iterations;
          options.own_start = true;
          options.heterogeneity = Heterogeneity(s.heterogeneity);
          Trainer trainer(world, {{view.data, view.count, view.dtype}}, s.hop, options);
          const bool serial = s.hop.order == Hop::Order::serial;
          while (trainer.running()) {
            const Iteration k = trainer.iteration();
            world.compute([] {});
            // Parallel: an average is changed to the next update; serial: before it is sent.
            const auto apply = [&](VectorView model) {
              if (!serial) models.check(model, k);
              models.sign(model, serial ? k : k + 1);
            };
            trainer.step(apply).throw_if_failed();
            if (serial) models.check(view, k);
          }
        },
        s.launch);
  });
}

/// What a scenario has come to where a worker is lost on the way.
struct Aftermath {
  std::vector<Status> ends;  // ok: the worker has done all its iterations
  std::optional<Status> launch;
};

Aftermath with_a_loss(const Scenario& s) {
  Aftermath aftermath;
  aftermath.ends.assign(static_cast<std::size_t>(s.workers), {Code::aborted, "did not end"});
  try {
    launch(
        s.workers,
        [&](World& world) {
          Status& end = aftermath.ends[static_cast<std::size_t>(world.rank())];
          try {
            TrainerOptions options;
            options.shared_graph = s.graph;
            options.iterations = s.iterations;
            options.heterogeneity = Heterogeneity(s.heterogeneity);
            Trainer trainer(world, {{nullptr, dimension, Dtype::float64}}, s.hop, options);
            while (trainer.running()) {
              world.compute([] {});
              if (!trainer.step(trainer.gradient())) break;
            }
            end = trainer.status();
            if (end) trainer.average();
          } catch (const Error& error) {
            end = {error.code(), error.what(), error.peer()};
          }
          end.throw_if_failed();
        },
        s.launch);
  } catch (const Error& error) {
    aftermath.launch = Status(error.code(), error.what(), error.peer());
  }
  return aftermath;
}

TEST(HopInvariants, ALostWorkerIsAnEventForAllOthersAndNobodyHangs) {
  testing::for_seeds(400, [](std::uint64_t seed) {
    Scenario s = random_scenario(seed, LaunchKind::simulated);
    Random random(key({seed, 17}));
    const int lost = static_cast<int>(random.below(static_cast<std::uint64_t>(s.workers)));
    // Now and then at once, so that it is surely lost in time.
    const Time at = seed % 8 == 0 ? Time(0) : from_seconds(random.uniform(0, 60e-3));
    s.launch.crashes = {{lost, at}};
    const Aftermath aftermath = with_a_loss(s);
    if (seed % 8 == 0) {
      EXPECT_TRUE(aftermath.launch.has_value());
    }
    for (int rank = 0; rank < s.workers; ++rank) {
      const Status& end = aftermath.ends[static_cast<std::size_t>(rank)];
      if (rank == lost || end.ok()) continue;
      EXPECT_EQ(end.code(), Code::peer_lost) << "worker " << rank << ": " << end.message();
      EXPECT_EQ(end.peer(), lost) << "worker " << rank << ": " << end.message();
      EXPECT_TRUE(aftermath.launch.has_value());
    }
    if (aftermath.launch) {
      EXPECT_EQ(aftermath.launch->code(), Code::peer_lost) << aftermath.launch->message();
    }
  });
}

TEST(HopInvariants, HoldOnThreads) {
  testing::for_seeds(
      25, [](std::uint64_t seed) { check(random_scenario(seed, LaunchKind::threads)); }, 25);
}

// With backup workers and no tokens nothing bounds the gap (B7): a stuck worker is left behind by
// as many iterations as there are.
TEST(Hop, WithoutTokensBackupWorkersLeaveAStuckWorkerBehindWithoutBound) {
  for (const Iteration iterations : {50U, 500U}) {
    std::vector<Iteration> in(6, 0);
    Iteration gap = 0;
    LaunchOptions options;
    options.kind = LaunchKind::simulated;
    launch(
        6,
        [&](World& world) {
          const auto me = static_cast<std::size_t>(world.rank());
          TrainerOptions run;
          run.iterations = iterations;
          run.heterogeneity = Heterogeneity({"1ms", {"rank=2,x=1000000"}, "", 6, 1});
          Trainer trainer(world, {{nullptr, 1}}, Hop{.backup = 1, .tokens = false}, run);
          while (trainer.running()) {
            in[me] = trainer.iteration();
            gap = std::max(gap, in[me] - std::min(in[me], in[2]));
            world.compute([] {});
            trainer.step(trainer.gradient()).throw_if_failed();
          }
        },
        options);
    EXPECT_EQ(gap, iterations - 1);
  }
}

Iteration iterations_of_straggler_run(const Hop& hop, std::uint64_t* skipped) {
  LaunchOptions launch_options;
  launch_options.kind = LaunchKind::simulated;
  Iteration done = 0;
  *skipped = 0;
  launch(
      8,
      [&](World& world) {
        TrainerOptions options;
        options.time_limit = 200s;
        options.heterogeneity = Heterogeneity({"1s", {"rank=3,x=4"}, "", 8, 1});
        Trainer trainer(world, {{nullptr, 0, Dtype::float32}}, hop, options);
        while (trainer.running()) {
          world.compute([] {});
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        done = trainer.iterations_done();
        *skipped += world.counters().iterations_skipped.get();
      },
      launch_options);
  return done;
}

TEST(Hop, AStragglerSlowsEverybodyWithoutSkippingAndNobodyWithIt) {
  std::uint64_t skipped = 0;
  EXPECT_LT(iterations_of_straggler_run({.max_gap = 5, .backup = 1}, &skipped), 75U);
  EXPECT_EQ(skipped, 0U);
  EXPECT_GT(iterations_of_straggler_run({.max_gap = 5, .backup = 1, .max_jump = 10}, &skipped),
            190U);
  EXPECT_GT(skipped, 100U);
}

TEST(Hop, AWorldOfOneTrainsInEveryMode) {
  for (const Hop& hop : {Hop{.backup = 1, .max_jump = 10}, Hop{.staleness = 2, .max_jump = 2},
                         Hop{.notify_ack = true}, Hop{.order = Hop::Order::serial}}) {
    for (const LaunchKind kind : {LaunchKind::simulated, LaunchKind::threads}) {
      LaunchOptions launch_options;
      launch_options.kind = kind;
      launch(
          1,
          [&](World& world) {
            Trainer trainer(world, {{nullptr, 3}}, hop, {.iterations = 5});
            while (trainer.running()) trainer.step(trainer.gradient()).throw_if_failed();
            EXPECT_EQ(trainer.iterations_done(), 5U);
          },
          launch_options);
    }
  }
}

TEST(Hop, RefusesCombinationsThatMakeNoSense) {
  const Graph ring = Graph::named("ring", 4);
  const auto reason = [&](const Hop& hop, bool simulated = false,
                          Iteration iterations = 10) -> std::string {
    try {
      hop.validate({.graph = ring, .iterations = iterations, .simulated = simulated});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(reason({}), "");
  EXPECT_NE(reason({.max_gap = 0}).find("max_gap"), std::string::npos);
  EXPECT_NE(reason({.backup = 1, .staleness = 2}).find("exclude"), std::string::npos);
  EXPECT_NE(reason({.backup = 1, .notify_ack = true}).find("notify_ack"), std::string::npos);
  EXPECT_NE(reason({.max_jump = 2}).find("max_jump needs"), std::string::npos);
  EXPECT_NE(reason({.backup = 1, .max_jump = 2, .skip_trigger = 1}).find("skip_trigger"),
            std::string::npos);
  EXPECT_EQ(reason({.staleness = 3, .max_jump = 2}), "");
  EXPECT_NE(reason({.tokens = false}).find("simulator"), std::string::npos);
  EXPECT_EQ(reason({.tokens = false}, true), "");
  EXPECT_NE(reason({.tokens = false}, true, max_iteration).find("iterations"), std::string::npos);
  EXPECT_NE(reason({.backup = 1, .max_jump = 2, .tokens = false}, true).find("max_jump"),
            std::string::npos);
  EXPECT_NE(reason({.notify_ack = true, .tokens = false}, true).find("notify_ack"),
            std::string::npos);
}

}  // namespace
}  // namespace slip
