#include "slipstream/runtime/agreed_stop.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <mutex>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/tokens.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

/// Workers that compute and take tokens until their last iteration; some ask for the end on the
/// way.
struct Scenario {
  Graph graph;
  int max_gap = 1;
  Iteration limit = max_iteration;
  Iteration slack = 2;
  LaunchOptions launch{};
  std::function<Duration(int rank, Iteration k)> compute{};
  /// In which iteration that worker asks; max_iteration: never.
  std::function<Iteration(int rank)> asks{};
};

struct Outcome {
  std::vector<Iteration> last;   // that each worker entered
  std::vector<Iteration> asked;  // the iterations in which somebody asked
};

Outcome run(const Scenario& s) {
  Outcome outcome{std::vector<Iteration>(static_cast<std::size_t>(s.graph.size())), {}};
  std::mutex mutex;
  launch(
      s.graph.size(),
      [&](World& world) {
        const int rank = world.rank();
        Tokens tokens(world, "tokens", testing::neighbourhood(s.graph, rank), s.max_gap);
        AgreedStop stop(world, "test", s.limit, s.slack);
        const auto wait = [&](FunctionRef<bool()> condition) {
          world.wait_until(condition, world.deadline(), "tokens or the end").throw_if_failed();
        };
        Iteration k = 0;
        for (;; ++k) {
          tokens.announce(k).throw_if_failed();
          world.set_compute_time(s.compute(rank, k));
          world.compute([] {});
          if (k == s.asks(rank)) {
            const std::lock_guard lock(mutex);
            outcome.asked.push_back(k);
            stop.request();
            stop.request();  // twice is once
          }
          const auto over = [&] { return k >= stop.last(); };
          const auto free = [&] { return tokens.may_enter(k + 1) && k + 1 <= stop.bound(); };
          stop.poll(k).throw_if_failed();
          while (!over() && !free()) {
            wait([&] { return over() || free() || stop.pending(); });
            stop.poll(k).throw_if_failed();
          }
          if (over()) break;
        }
        outcome.last[static_cast<std::size_t>(rank)] = k;
        tokens.announce_finished().throw_if_failed();
        stop.finish().throw_if_failed();
        while (!stop.all_finished()) {
          wait([&] { return stop.pending() || stop.all_finished(); });
          stop.poll(k).throw_if_failed();
        }
        EXPECT_EQ(k, stop.last());
      },
      s.launch);
  return outcome;
}

void expect_agreed(const Scenario& s, const Outcome& outcome) {
  const Iteration last = outcome.last.front();
  EXPECT_THAT(outcome.last, ::testing::Each(last));
  EXPECT_LE(last, s.limit);
  if (outcome.asked.empty()) {
    EXPECT_EQ(last, s.limit);
  }
  // The end is not before anybody asked.
  if (last < s.limit) {
    EXPECT_GE(last, *std::min_element(outcome.asked.begin(), outcome.asked.end()) + s.slack);
  }
}

Scenario random_scenario(std::uint64_t seed) {
  Random random(seed);
  const int workers = 1 + static_cast<int>(random.below(8));
  Scenario s{.graph = testing::random_graph(workers, random.uniform(0, 0.6), seed)};
  s.max_gap = 1 + static_cast<int>(random.below(4));
  s.slack = random.below(4);
  s.limit = random.below(4) == 0 ? 5 + random.below(20) : max_iteration;
  s.launch.kind = LaunchKind::simulated;
  s.launch.stack_bytes = 64 * 1024;
  if (random.below(2) == 1) s.launch.world.network.link.latency = 300us;
  if (random.below(2) == 1) {
    s.launch.faults = FaultPlan{.seed = seed, .delay_probability = 0.3, .max_delay = 3ms};
  }
  s.compute = [seed](int rank, Iteration k) {
    const auto worker = static_cast<std::uint64_t>(rank);
    const double slow = Random(key({seed, worker})).uniform() < 0.3 ? 6 : 1;
    return from_seconds(Random(key({seed, worker, k})).uniform(0, 1e-3) * slow);
  };
  // At least one asks, and perhaps several at about the same time.
  const auto first = static_cast<int>(random.below(static_cast<std::uint64_t>(workers)));
  const Iteration when = random.below(25);
  const double others = random.uniform();
  s.asks = [=](int rank) -> Iteration {
    Random draw(key({seed, 99, static_cast<std::uint64_t>(rank)}));
    if (rank == first) return when;
    return draw.uniform() < others ? when + draw.below(4) : max_iteration;
  };
  return s;
}

TEST(AgreedStop, all_end_at_the_same_iteration_whoever_asks_whenever) {
  testing::for_seeds(1000, [](std::uint64_t seed) {
    const Scenario s = random_scenario(seed);
    expect_agreed(s, run(s));
  });
}

TEST(AgreedStop, all_end_at_the_same_iteration_in_real_time) {
  testing::for_seeds(
      20,
      [](std::uint64_t seed) {
        Scenario s = random_scenario(seed);
        s.launch.kind = LaunchKind::threads;
        s.launch.world.network = {};
        s.launch.world.wait_timeout = 60s;
        expect_agreed(s, run(s));
      },
      20);
}

TEST(AgreedStop, without_a_request_all_reach_the_limit) {
  testing::for_seeds(50, [](std::uint64_t seed) {
    Scenario s = random_scenario(seed);
    s.limit = 10;
    s.asks = [](int) { return max_iteration; };
    EXPECT_THAT(run(s).last, ::testing::Each(10u));
  });
}

TEST(AgreedStop, a_limit_of_zero_is_one_iteration) {
  Scenario s = random_scenario(1);
  s.limit = 0;
  s.asks = [](int) { return max_iteration; };
  EXPECT_THAT(run(s).last, ::testing::Each(0u));
}

TEST(AgreedStop, a_request_near_the_limit_does_not_pass_it) {
  testing::for_seeds(100, [](std::uint64_t seed) {
    Scenario s = random_scenario(seed);
    s.limit = 12;
    s.slack = 3;
    s.asks = [](int rank) -> Iteration { return rank == 0 ? 11 : max_iteration; };
    EXPECT_THAT(run(s).last, ::testing::Each(12u));
  });
}

TEST(AgreedStop, workers_that_run_freely_end_where_they_are) {
  std::vector<Iteration> last(4);
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  launch(
      4,
      [&](World& world) {
        AgreedStop stop(world, "test", max_iteration, 2, AgreedStop::End::where_it_is);
        Iteration k = 0;
        for (;; ++k) {
          world.set_compute_time(world.rank() == 3 ? 10s : 1s);
          world.compute([] {});
          if (world.rank() == 1 && k == 54) stop.request();
          stop.poll(k).throw_if_failed();
          if (k >= stop.last()) break;
        }
        last[static_cast<std::size_t>(world.rank())] = k;
        stop.finish().throw_if_failed();
        while (!stop.all_finished()) {
          world
              .wait_until([&] { return stop.pending() || stop.all_finished(); }, world.deadline(),
                          "the others")
              .throw_if_failed();
          stop.poll(k).throw_if_failed();
        }
      },
      options);
  const auto soon = ::testing::AnyOf(54, 55);
  EXPECT_THAT(last, ::testing::ElementsAre(soon, soon, soon, 5));
}

TEST(AgreedStop, a_straggler_may_ask_while_the_others_wait_for_its_tokens) {
  Scenario s{.graph = testing::random_graph(4, 1.0, 1)};
  s.max_gap = 2;
  s.launch.kind = LaunchKind::simulated;
  s.compute = [](int rank, Iteration) { return rank == 3 ? 1s : 1ms; };
  s.asks = [](int rank) -> Iteration { return rank == 3 ? 4 : max_iteration; };
  const Outcome outcome = run(s);
  expect_agreed(s, outcome);
  EXPECT_EQ(outcome.last.front(), 4u + 2u + 2u);  // the others were max_gap ahead
}

}  // namespace
}  // namespace slip
