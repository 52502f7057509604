#include "slipstream/runtime/tokens.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

LaunchOptions simulated() {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.stack_bytes = 64 * 1024;
  return options;
}

/// Rank 1 is the only receiver of rank 0, which looks at its tokens after each announcement.
void watch_receiver(int max_gap, const std::vector<std::function<Status(Tokens&)>>& announcements,
                    const std::function<void(Tokens&, int step)>& look) {
  launch(
      2,
      [&](World& world) {
        const Graph edge(2, {{0, 1, {}}});
        Tokens tokens(world, "tokens", testing::neighbourhood(edge, world.rank()), max_gap);
        for (int step = 0; step <= static_cast<int>(announcements.size()); ++step) {
          if (world.rank() == 1 && step > 0) {
            expect_ok(announcements[static_cast<std::size_t>(step) - 1](tokens));
          }
          world.bootstrap().fence(never);
          if (world.rank() == 0) look(tokens, step);
          world.bootstrap().fence(never);
        }
      },
      simulated());
}

TEST(Tokens, a_queue_begins_with_max_gap_less_one) {
  watch_receiver(3, {}, [](Tokens& tokens, int) {
    EXPECT_EQ(tokens.count(0, 0), 2);
    EXPECT_TRUE(tokens.may_enter(0));
    EXPECT_TRUE(tokens.may_enter(2));
    EXPECT_FALSE(tokens.may_enter(3));
  });
}

TEST(Tokens, entering_an_iteration_inserts_one_and_a_jump_as_many_as_it_is_long) {
  watch_receiver(2,
                 {[](Tokens& t) { return t.announce(0); }, [](Tokens& t) { return t.announce(1); },
                  [](Tokens& t) { return t.announce(6); }},
                 [](Tokens& tokens, int step) {
                   const std::int64_t entered[] = {-1, 0, 1, 6};
                   EXPECT_EQ(tokens.count(0, 1), 2 + entered[step] - 1);
                   const auto furthest = static_cast<Iteration>(entered[step] + 2);
                   EXPECT_TRUE(tokens.may_enter(furthest));
                   EXPECT_FALSE(tokens.may_enter(furthest + 1));
                 });
}

TEST(Tokens, lag_and_lead_are_the_gap_to_the_receiver) {
  watch_receiver(5,
                 {[](Tokens& t) { return t.announce(0); }, [](Tokens& t) { return t.announce(4); }},
                 [](Tokens& tokens, int step) {
                   if (step == 1) {
                     EXPECT_EQ(tokens.lag(0), 0u);
                     EXPECT_EQ(tokens.lead(3), 3u);
                   } else if (step == 2) {
                     EXPECT_EQ(tokens.lag(0), 4u);
                     EXPECT_EQ(tokens.lag(3), 1u);
                     EXPECT_EQ(tokens.lag(4), 0u);
                     EXPECT_EQ(tokens.lag(6), 0u) << "it is ahead";
                     EXPECT_EQ(tokens.lead(4), 0u);
                     EXPECT_EQ(tokens.lead(6), 2u);
                   }
                 });
}

TEST(Tokens, a_receiver_has_passed_what_lies_before_the_iteration_that_it_is_in) {
  watch_receiver(3, {[](Tokens& t) { return t.announce(4); }}, [](Tokens& tokens, int step) {
    EXPECT_EQ(tokens.passed(0, 3), step == 1);
    EXPECT_FALSE(tokens.passed(0, 4));
    EXPECT_FALSE(tokens.passed(0, 5));
  });
}

TEST(Tokens, nobody_waits_for_the_tokens_of_who_has_finished_or_lags_behind_it) {
  watch_receiver(
      1, {[](Tokens& t) { return t.announce(0); }, [](Tokens& t) { return t.announce_finished(); }},
      [](Tokens& tokens, int step) {
        if (step != 2) return;
        EXPECT_TRUE(tokens.may_enter(1'000'000));
        EXPECT_EQ(tokens.lag(0), 0u);
        EXPECT_EQ(tokens.lead(1'000'000), 0u);
        EXPECT_TRUE(tokens.passed(0, 1'000'000));
      });
}

TEST(Tokens, lag_counts_the_slowest_receiver_that_still_runs) {
  launch(
      4,
      [](World& world) {
        const Graph star(4, {{0, 1, {}}, {0, 2, {}}, {0, 3, {}}});
        Tokens tokens(world, "tokens", testing::neighbourhood(star, world.rank()), 10);
        if (world.rank() == 1) expect_ok(tokens.announce(7));
        if (world.rank() == 2) expect_ok(tokens.announce(5));
        if (world.rank() == 3) expect_ok(tokens.announce_finished());
        world.bootstrap().fence(never);
        if (world.rank() == 0) {
          EXPECT_EQ(tokens.lag(2), 3u);
          EXPECT_EQ(tokens.lead(8), 3u);
          EXPECT_TRUE(tokens.may_enter(15));
          EXPECT_FALSE(tokens.may_enter(16));
        }
        world.bootstrap().fence(never);
      },
      simulated());
}

TEST(Tokens, a_worker_without_neighbours_may_always_go_on) {
  launch(
      1,
      [](World& world) {
        Tokens tokens(world, "tokens", {}, 1);
        expect_ok(tokens.announce(3));
        EXPECT_TRUE(tokens.may_enter(1000));
        EXPECT_EQ(tokens.lag(0), 0u);
        EXPECT_EQ(tokens.lead(1000), 0u);
      },
      simulated());
}

TEST(Tokens, a_gap_below_one_is_refused) {
  EXPECT_THROW(launch(
                   1, [](World& world) { Tokens(world, "tokens", {}, 0); }, simulated()),
               Error);
}

TEST(Tokens, different_graphs_are_refused) {
  try {
    launch(
        3,
        [](World& world) {
          // Rank 2 takes itself for the second receiver of rank 0, which has only one.
          const Neighbourhood sender{{}, {{1, 0}}};
          const Neighbourhood receiver{{{0, world.rank() - 1}}, {}};
          const Tokens tokens(world, "tokens", world.rank() == 0 ? sender : receiver, 1);
          world.bootstrap().fence(never);
        },
        simulated());
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::peer_mismatch);
    EXPECT_EQ(error.peer(), 0);
  }
}

// |TokenQ(o -> i)| = max_gap + Iter(o) - Iter(i), exactly where words arrive at once and
// never more where they take their time; B5: nobody is more than max_gap ahead per hop of the way
// back.
TEST(Tokens, counts_and_gaps_are_as_the_paper_says_on_random_graphs) {
  testing::for_seeds(3000, [](std::uint64_t seed) {
    Random random(seed);
    const int workers = 2 + static_cast<int>(random.below(6));
    const Graph graph = testing::random_graph(workers, random.uniform(0, 0.6), seed);
    const int max_gap = 1 + static_cast<int>(random.below(4));
    LaunchOptions options = simulated();
    const bool delayed = random.below(2) == 1;
    if (delayed) {
      options.world.network.link.latency = 50us;
      options.faults = FaultPlan{.seed = seed, .delay_probability = 0.3, .max_delay = 2ms};
    }
    std::vector<std::int64_t> iteration(static_cast<std::size_t>(workers), -1);
    std::vector<std::vector<int>> distance;
    for (int rank = 0; rank < workers; ++rank) distance.push_back(graph.distances(rank));
    launch(
        workers,
        [&](World& world) {
          const auto self = static_cast<std::size_t>(world.rank());
          const auto out = graph.neighbours_out(world.rank());
          Tokens tokens(world, "tokens", testing::neighbourhood(graph, world.rank()), max_gap);
          Random draw(key({seed, self}));
          for (Iteration k = 0; k < 15; ++k) {
            iteration[self] = static_cast<std::int64_t>(k);
            expect_ok(tokens.announce(k));
            world.set_compute_time(Duration(static_cast<Duration::rep>(draw.below(1'000'000))));
            world.compute([] {});
            for (std::size_t o = 0; o < out.size(); ++o) {
              const std::int64_t exact = max_gap + iteration[static_cast<std::size_t>(out[o])] -
                                         static_cast<std::int64_t>(k);
              const std::int64_t count = tokens.count(o, k);
              if (delayed) {
                EXPECT_LE(count, exact);
              } else {
                EXPECT_EQ(count, exact);
              }
              EXPECT_GE(count, 0);
            }
            for (std::size_t other = 0; other < iteration.size(); ++other) {
              EXPECT_LE(iteration[self] - iteration[other], max_gap * distance[self][other]);
            }
            expect_ok(world.wait_until([&] { return tokens.may_enter(k + 1); }, never, "tokens"));
          }
          expect_ok(tokens.announce_finished());
          iteration[self] = max_iteration;
        },
        options);
  });
}

}  // namespace
}  // namespace slip
