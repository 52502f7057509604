// How far a lagging worker may jump (Hop, section 5: skipping iterations): up to its slowest
// receiver and max_gap + 1 iterations never deadlocks. Longer jumps do, which shows that the limit
// is needed and that these schedules look where it hurts.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string_view>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/runtime/tokens.h"
#include "slipstream/runtime/update_queue.h"

namespace slip {
namespace {

struct Schedule {
  Graph graph;
  int max_gap;
  Iteration iterations;
  std::uint64_t seed;
  /// Iterations that a worker advances, which lags that far behind its slowest receiver.
  std::function<Iteration(Iteration lag, Iteration max_gap)> jump;
};

/// The communication of Hop with one backup worker and skipping, without the learning.
void hop(World& world, const Schedule& s) {
  const int rank = world.rank();
  const auto edges = testing::neighbourhood(s.graph, rank);
  Tokens tokens(world, "tokens", edges, s.max_gap);
  UpdateQueueOptions options;
  options.depth = s.max_gap + 1;
  UpdateQueue queue(world, "updates", edges, options);
  const int need = std::max(1, static_cast<int>(edges.in.size()) - 1);
  const auto receive = [&](Iteration k) {
    world.wait_until([&] { return queue.size(k) >= need; }, never, "updates").throw_if_failed();
  };
  const double slowness = Random(key({s.seed, static_cast<std::uint64_t>(rank)})).uniform(1, 10);
  for (Iteration k = 0; k < s.iterations;) {
    tokens.announce(k).throw_if_failed();
    for (std::size_t out = 0; out < edges.out.size(); ++out) {
      if (!tokens.passed(out, k)) queue.enqueue(out, k, nullptr).throw_if_failed();
    }
    Random draw(key({s.seed, static_cast<std::uint64_t>(rank), k}));
    world.set_compute_time(from_seconds(draw.uniform(0, 1e-3) * slowness));
    world.compute([] {});
    receive(k);
    Iteration next = k + 1;
    if (const Iteration lag = tokens.lag(k); lag >= 2) {
      next = std::min(k + s.jump(lag, static_cast<Iteration>(s.max_gap)), s.iterations);
      if (next > k + 1) receive(next - 1);
    }
    world.wait_until([&] { return tokens.may_enter(next); }, never, "tokens").throw_if_failed();
    k = next;
  }
  tokens.announce_finished().throw_if_failed();
}

/// Whether the schedule of that seed, on a directed graph, ends in a deadlock.
bool deadlocks(std::uint64_t seed,
               const std::function<Iteration(Iteration lag, Iteration max_gap)>& jump) {
  Random random(seed);
  const int workers = 5 + static_cast<int>(random.below(4));
  const Schedule s{testing::random_graph(workers, random.uniform(0, 0.4), seed),
                   1 + static_cast<int>(random.below(3)), 30, seed, jump};
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.world.network.link.latency = from_seconds(random.uniform(0, 2e-3));
  try {
    launch(
        workers, [&](World& world) { hop(world, s); }, options);
    return false;
  } catch (const Error& error) {
    EXPECT_NE(std::string_view(error.what()).find("deadlock"), std::string_view::npos)
        << error.what();
    return true;
  }
}

TEST(JumpLimit, UpToTheSlowestReceiverAndTheGapNothingDeadlocks) {
  const auto within = [](Iteration lag, Iteration max_gap) { return std::min(lag, max_gap + 1); };
  testing::for_seeds(1000, [&](std::uint64_t seed) { EXPECT_FALSE(deadlocks(seed, within)); });
}

TEST(JumpLimit, BeyondTheGapDirectedGraphsDeadlock) {
  const auto beyond = [](Iteration lag, Iteration) { return lag; };
  int count = 0;
  for (std::uint64_t seed = 1; seed <= 1000; ++seed) count += deadlocks(seed, beyond);
  EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace slip
