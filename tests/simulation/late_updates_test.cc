// What a report calls late: updates that their receiver met when they were too old to be used.

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "slipstream/runtime/launch.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

constexpr Iteration iterations = 50;

struct Scenario {
  int workers = 8;
  std::string graph = "ring-based";
  std::vector<std::string> slow = {};
  sim::NetworkOptions network = {};
};

struct Updates {
  std::uint64_t sent = 0;
  std::uint64_t used = 0;
  std::uint64_t late = 0;
};

Updates run(const Hop& hop, const Scenario& s) {
  Updates sum;
  LaunchOptions launched;
  launched.kind = LaunchKind::simulated;
  launched.world.network = s.network;
  launch(
      s.workers,
      [&](World& world) {
        TrainerOptions options;
        options.graph = s.graph;
        options.iterations = iterations;
        options.heterogeneity = Heterogeneity({"10ms", s.slow, "", s.workers, 1});
        Trainer trainer(world, {{nullptr, 3}}, hop, options);
        while (trainer.running()) {
          world.compute([] {});
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        const Counters& counters = world.counters();
        sum.sent += counters.updates_sent.get();
        sum.used += counters.updates_used.get();
        sum.late += counters.updates_late.get();
      },
      launched);
  return sum;
}

Scenario random_slowdowns() {
  Scenario s;
  s.slow = {"random,x=6,p=1/n"};
  s.network.link.latency = 1ms;
  return s;
}

TEST(LateUpdates, ThereAreNoneWhereAllAreWaitedFor) {
  for (const Hop& hop :
       {Hop{}, Hop{.max_gap = 1}, Hop{.notify_ack = true}, Hop{.order = Hop::Order::serial}}) {
    const Updates updates = run(hop, random_slowdowns());
    EXPECT_EQ(updates.used, updates.sent);
    EXPECT_EQ(updates.late, 0u);
  }
}

TEST(LateUpdates, AreThoseThatBackupWorkersStoodInFor) {
  // Three workers are in lockstep. The updates of rank 2, which has a host of its own, are on their
  // way for 12 ms, and the others do without them after 10 ms. Each of these is met one iteration
  // later, but for that of the last.
  Scenario s{.workers = 3, .graph = "complete"};
  s.network.workers_per_host = 2;
  s.network.links = {{1, 0, {0, 12ms}}};
  const Updates updates = run({.backup = 1}, s);
  EXPECT_EQ(updates.sent, 6 * iterations);
  EXPECT_EQ(updates.used, 4 * iterations);
  EXPECT_EQ(updates.late, 2 * (iterations - 1));
}

TEST(LateUpdates, ComeWithRandomSlowdownsAndBackupWorkers) {
  const Updates updates = run({.backup = 1}, random_slowdowns());
  EXPECT_GT(updates.late, 0u);
  EXPECT_LE(updates.used + updates.late, updates.sent);
}

TEST(LateUpdates, AreNotThoseThatGaveWayToNewerOnes) {
  // The straggler takes the newest of its neighbours' updates and passes over those in between.
  Scenario s;
  s.slow = {"rank=3,x=4"};
  s.network.link.latency = 1ms;
  const Updates updates = run({.staleness = 3}, s);
  EXPECT_LT(updates.used, updates.sent);
  EXPECT_EQ(updates.late, 0u);
}

TEST(LateUpdates, AreThoseOfIterationsThatAJumpLeavesOut) {
  Scenario s{.workers = 4, .graph = "complete"};
  s.slow = {"rank=3,x=4"};
  EXPECT_EQ(run({.backup = 1}, s).late, 0u) << "no latency, and nobody jumps";
  EXPECT_GT(run({.backup = 1, .max_jump = 10}, s).late, 0u);
}

}  // namespace
}  // namespace slip
