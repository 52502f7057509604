#include "slipstream/runtime/update_queue.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/tokens.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::Backend;
using ::testing::HasSubstr;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

/// What rank `sender` sends as its update of iteration `k`.
std::vector<std::byte> pattern(std::size_t bytes, int sender, Iteration k) {
  Random random(key({static_cast<std::uint64_t>(sender), k}));
  std::vector<std::byte> update(bytes);
  for (std::byte& byte : update) byte = std::byte(random());
  return update;
}

bool is_pattern(const std::byte* update, std::size_t bytes, int sender, Iteration k) {
  const auto expected = pattern(bytes, sender, k);
  return bytes == 0 || std::memcmp(update, expected.data(), bytes) == 0;
}

UpdateQueueOptions options_of(std::size_t bytes, int depth, std::size_t chunk_bytes = 1024) {
  UpdateQueueOptions options;
  options.bytes = bytes;
  options.depth = depth;
  options.chunk_bytes = chunk_bytes;
  options.checksums = true;
  return options;
}

// ---- Behaviours, on every backend.

class UpdateQueueTest : public ::testing::TestWithParam<Backend> {
 protected:
  /// Rank 0 sends to rank 1.
  void run_edge(const UpdateQueueOptions& options,
                const std::function<void(World&, UpdateQueue&)>& sender,
                const std::function<void(World&, UpdateQueue&)>& receiver) {
    GetParam().run(
        2,
        [&](World& world) {
          const Graph edge(2, {{0, 1, {}}});
          UpdateQueue queue(world, "updates", testing::neighbourhood(edge, world.rank()), options);
          (world.rank() == 0 ? sender : receiver)(world, queue);
          world.bootstrap().fence(60s);
        },
        GetParam().defaults);
  }
};

void await(World& world, const UpdateQueue& queue, Iteration k) {
  expect_ok(world.wait_until([&] { return queue.arrived(0, k); }, world.deadline(), "an update"));
}

TEST_P(UpdateQueueTest, an_update_arrives_whole_under_its_iteration) {
  for (const std::size_t bytes : {1u, 8u, 1000u, 1024u, 1025u, 10'000u}) {
    run_edge(
        options_of(bytes, 4),
        [bytes](World&, UpdateQueue& queue) {
          for (Iteration k = 0; k < 4; ++k) {
            expect_ok(queue.enqueue(0, k, pattern(bytes, 0, k).data()));
          }
        },
        [bytes](World& world, UpdateQueue& queue) {
          for (Iteration k = 4; k-- > 0;) {  // in any order
            await(world, queue, k);
            expect_ok(queue.verify(0, k));
            EXPECT_TRUE(is_pattern(queue.update(0, k), bytes, 0, k));
            EXPECT_EQ(queue.size(k), 1);
          }
          EXPECT_FALSE(queue.arrived(0, 4));
          EXPECT_FALSE(queue.arrived(0, 8));
          EXPECT_EQ(queue.size(4), 0);
        });
  }
}

TEST_P(UpdateQueueTest, nothing_has_arrived_before_anything_was_sent) {
  run_edge(
      options_of(100, 3), [](World&, UpdateQueue&) {},
      [](World&, UpdateQueue& queue) {
        for (Iteration k = 0; k < 10; ++k) EXPECT_FALSE(queue.arrived(0, k)) << k;
      });
}

TEST_P(UpdateQueueTest, chunks_are_announced_one_by_one) {
  run_edge(
      options_of(2500, 2),
      [](World&, UpdateQueue& queue) {
        expect_ok(queue.enqueue(0, 7, pattern(2500, 0, 7).data()));
      },
      [](World& world, UpdateQueue& queue) {
        ASSERT_EQ(queue.chunks(), 3u);
        EXPECT_EQ(queue.chunk_size(0), 1024u);
        EXPECT_EQ(queue.chunk_size(2), 452u);
        const auto expected = pattern(2500, 0, 7);
        for (std::size_t c = 0; c < 3; ++c) {
          expect_ok(world.wait_until([&] { return queue.chunk_arrived(0, 7, c); }, world.deadline(),
                                     "a chunk"));
          EXPECT_EQ(std::memcmp(queue.update(0, 7) + 1024 * c, expected.data() + 1024 * c,
                                queue.chunk_size(c)),
                    0);
        }
        EXPECT_TRUE(queue.arrived(0, 7));
      });
}

TEST_P(UpdateQueueTest, an_update_may_be_sent_chunk_by_chunk_as_it_is_made) {
  run_edge(
      options_of(2500, 2),
      [](World&, UpdateQueue& queue) {
        for (std::size_t c = 0; c < queue.chunks(); ++c) {
          const auto chunk = pattern(2500, 0, 7);  // gone before the next
          expect_ok(queue.enqueue_chunk(0, 7, c, chunk.data() + 1024 * c));
        }
      },
      [](World& world, UpdateQueue& queue) {
        await(world, queue, 7);
        expect_ok(queue.verify(0, 7));
        EXPECT_TRUE(is_pattern(queue.update(0, 7), 2500, 0, 7));
        EXPECT_EQ(queue.size(7), 1);
      });
}

TEST_P(UpdateQueueTest, updates_without_bytes_are_words_only) {
  run_edge(
      options_of(0, 2), [](World&, UpdateQueue& queue) { expect_ok(queue.enqueue(0, 5, nullptr)); },
      [](World& world, UpdateQueue& queue) {
        await(world, queue, 5);
        expect_ok(queue.verify(0, 5));
      });
}

TEST_P(UpdateQueueTest, a_slot_is_used_again_after_depth_iterations) {
  run_edge(
      options_of(64, 3),
      [](World& world, UpdateQueue& queue) {
        expect_ok(queue.enqueue(0, 1, pattern(64, 0, 1).data()));
        expect_ok(queue.enqueue(0, 2, pattern(64, 0, 2).data()));
        world.bootstrap().fence(60s);
        expect_ok(queue.enqueue(0, 4, pattern(64, 0, 4).data()));
      },
      [](World& world, UpdateQueue& queue) {
        await(world, queue, 1);
        world.bootstrap().fence(60s);
        await(world, queue, 4);
        EXPECT_FALSE(queue.arrived(0, 1)) << "overwritten";
        EXPECT_TRUE(queue.arrived(0, 2));
        EXPECT_TRUE(is_pattern(queue.update(0, 4), 64, 0, 4));
      });
}

TEST_P(UpdateQueueTest, a_damaged_update_is_named) {
  run_edge(
      options_of(100, 1),
      [](World& world, UpdateQueue& queue) {
        expect_ok(queue.enqueue(0, 3, pattern(100, 0, 3).data()));
        world.bootstrap().fence(60s);
      },
      [](World& world, UpdateQueue& queue) {
        await(world, queue, 3);
        world.bootstrap().fence(60s);
        expect_ok(queue.verify(0, 3));
        const_cast<std::byte*>(queue.update(0, 3))[50] ^= std::byte{1};
        const Status status = queue.verify(0, 3);
        EXPECT_EQ(status.code(), Code::bad_data);
        EXPECT_EQ(status.peer(), 0);
        EXPECT_THAT(status.message(), HasSubstr("rank 1"));
        EXPECT_THAT(status.message(), HasSubstr("iteration 3 from rank 0"));
      });
}

TEST_P(UpdateQueueTest, senders_have_their_own_slots) {
  GetParam().run(
      4,
      [](World& world) {
        const Graph star(4, {{1, 0, {}}, {2, 0, {}}, {3, 0, {}}});
        const auto edges = testing::neighbourhood(star, world.rank());
        UpdateQueue queue(world, "updates", edges, options_of(500, 2));
        if (world.rank() == 0) {
          expect_ok(world.wait_until([&] { return queue.size(9) == 3; }, world.deadline(),
                                     "all updates"));
          for (std::size_t in = 0; in < 3; ++in) {
            EXPECT_TRUE(is_pattern(queue.update(in, 9), 500, edges.in[in].peer, 9));
          }
        } else {
          expect_ok(queue.enqueue(0, 9, pattern(500, world.rank(), 9).data()));
        }
        world.bootstrap().fence(60s);
      },
      GetParam().defaults);
}

INSTANTIATE_TEST_SUITE_P(Backends, UpdateQueueTest, ::testing::ValuesIn(testing::backends()),
                         [](const auto& info) { return info.param.name; });

TEST(UpdateQueueSetUp, impossible_options_are_refused) {
  launch(1, [](World& world) {
    EXPECT_THROW(UpdateQueue(world, "a", {}, options_of(8, 0)), Error);
    EXPECT_THROW(UpdateQueue(world, "b", {}, options_of(8, 1, 0)), Error);
  });
}

TEST(UpdateQueueSetUp, queues_of_different_sizes_are_refused) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  try {
    launch(
        2,
        [](World& world) {
          const Graph edge(2, {{0, 1, {}}});
          const UpdateQueue queue(world, "updates", testing::neighbourhood(edge, world.rank()),
                                  options_of(world.rank() == 0 ? 10'000 : 10, 2));
          world.bootstrap().fence(never);
        },
        options);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::peer_mismatch);
    EXPECT_EQ(error.peer(), 1);
  }
}

// ---- The depth of the ring: max_gap + 1 slots, max_gap + staleness + 1 with
// bounded staleness, are enough on every schedule; one fewer is not.

enum class Mode { standard, backup, staleness };

struct Scenario {
  Graph graph;
  Mode mode = Mode::standard;
  int max_gap = 1;
  int staleness = 0;
  int depth = 2;
  Iteration iterations = 12;
  LaunchOptions launch{};
  /// How long a worker computes in an iteration, and how long it reads the updates.
  std::function<Duration(int rank, Iteration k)> compute{};
  std::function<Duration(int rank, Iteration k)> read{};
};

int enough(const Scenario& s) { return s.max_gap + s.staleness + 1; }

/// The communication of Hop, without the learning. Every update that is read must be of the
/// iteration it is read for, whole, and stay so for as long as it is read.
void hop(World& world, const Scenario& s, std::vector<std::string>& violations) {
  constexpr std::size_t bytes = 200;
  const int rank = world.rank();
  const auto edges = testing::neighbourhood(s.graph, rank);
  Tokens tokens(world, "tokens", edges, s.max_gap);
  UpdateQueue queue(world, "updates", edges, options_of(bytes, s.depth, 128));
  std::vector<Iteration> newest(edges.in.size(), 0);
  const auto last = [&](Duration duration) {
    world.set_compute_time(duration);
    world.compute([] {});
  };
  const auto check = [&](std::size_t in, Iteration k, const char* when) {
    const int sender = edges.in[in].peer;
    if (queue.arrived(in, k) && queue.verify(in, k).ok() &&
        is_pattern(queue.update(in, k), bytes, sender, k)) {
      return;
    }
    violations.push_back("rank " + std::to_string(rank) + ", update " + std::to_string(k) +
                         " of rank " + std::to_string(sender) + ": damaged " + when + " reading");
  };
  for (Iteration k = 0; k < s.iterations; ++k) {
    tokens.announce(k).throw_if_failed();
    for (std::size_t out = 0; out < edges.out.size(); ++out) {
      queue.enqueue(out, k, pattern(bytes, rank, k).data()).throw_if_failed();
    }
    last(s.compute(rank, k));
    // Which updates this iteration uses: (in-neighbour, iteration).
    std::vector<std::pair<std::size_t, Iteration>> used;
    const auto staleness = static_cast<Iteration>(s.staleness);
    const auto ready = [&] {
      used.clear();
      for (std::size_t in = 0; in < edges.in.size(); ++in) {
        // Senders are at most max_gap ahead; with staleness the newest counts, whatever it is.
        const Iteration most =
            s.mode == Mode::staleness ? k + static_cast<Iteration>(s.max_gap) : k;
        const Iteration least = k - std::min(k, staleness);
        for (Iteration i = most + 1; i-- > least;) {
          if (!queue.arrived(in, i)) continue;
          used.emplace_back(in, i);
          break;
        }
      }
      const std::size_t missing = s.mode == Mode::backup ? 1 : 0;
      return used.size() >= std::max<std::size_t>(1, edges.in.size() - missing) ||
             used.size() == edges.in.size();
    };
    world.wait_until(ready, never, "updates").throw_if_failed();
    for (const auto& [in, i] : used) check(in, i, "before");
    last(s.read(rank, k));
    for (const auto& [in, i] : used) check(in, i, "while");
    world.wait_until([&] { return tokens.may_enter(k + 1); }, never, "tokens").throw_if_failed();
  }
  tokens.announce_finished().throw_if_failed();
  // In the scenarios that break, somebody may wait for an update that was overwritten.
  world.goodbye();
}

/// What went wrong; empty if nothing did. An error other than that all wait for each other is none
/// that a ring which is too short can explain.
std::vector<std::string> violations_of(const Scenario& s) {
  std::vector<std::string> violations;
  try {
    launch(
        s.graph.size(), [&](World& world) { hop(world, s, violations); }, s.launch);
  } catch (const Error& error) {
    const bool deadlock = std::string_view(error.what()).find("deadlock") != std::string_view::npos;
    if (error.code() != Code::aborted || !deadlock) throw;
    violations.push_back(error.what());
  }
  return violations;
}

LaunchOptions simulated() {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.stack_bytes = 64 * 1024;
  return options;
}

/// On a directed ring of max_gap + 1 workers the sender of a worker that reads slowly gets max_gap
/// ahead of it: as far as tokens allow, and as updates do.
Scenario slow_reader(int max_gap) {
  const int workers = max_gap + 1;
  std::vector<Edge> edges;
  for (int rank = 0; rank < workers; ++rank) edges.push_back({rank, (rank + 1) % workers, {}});
  Scenario s{.graph = Graph(workers, edges)};
  s.max_gap = max_gap;
  s.launch = simulated();
  s.compute = [](int, Iteration) { return 1us; };
  s.read = [](int rank, Iteration) { return rank == 0 ? 1ms : 1us; };
  return s;
}

TEST(RingDepth, max_gap_slots_break_under_a_slow_reader) {
  for (const int max_gap : {1, 2, 3, 5}) {
    Scenario s = slow_reader(max_gap);
    s.depth = max_gap;
    EXPECT_FALSE(violations_of(s).empty()) << "max_gap " << max_gap;
  }
}

TEST(RingDepth, one_slot_more_holds_under_the_same_slow_reader) {
  for (const int max_gap : {1, 2, 3, 5}) {
    Scenario s = slow_reader(max_gap);
    s.depth = max_gap + 1;
    EXPECT_THAT(violations_of(s), ::testing::IsEmpty()) << "max_gap " << max_gap;
  }
}

Scenario random_scenario(std::uint64_t seed) {
  Random random(seed);
  const int workers = 2 + static_cast<int>(random.below(5));
  Scenario s{.graph = testing::random_graph(workers, random.uniform(0, 0.7), seed)};
  s.mode = static_cast<Mode>(random.below(3));
  s.max_gap = 1 + static_cast<int>(random.below(4));
  s.staleness = s.mode == Mode::staleness ? static_cast<int>(random.below(4)) : 0;
  s.launch = simulated();
  if (random.below(2) == 1) {
    s.launch.world.network.link = {random.uniform(1e6, 1e8), 20us};
    s.launch.world.network.inner_link = {1e9, 1us};
    s.launch.world.network.workers_per_host = 1 + static_cast<int>(random.below(3));
  }
  if (random.below(2) == 1) {
    s.launch.faults = FaultPlan{.seed = seed, .delay_probability = 0.2, .max_delay = 1ms};
  }
  // Everybody is slow now and then, and some are slow for ever.
  const auto duration = [seed](std::uint64_t what) {
    return [seed, what](int rank, Iteration k) {
      const auto worker = static_cast<std::uint64_t>(rank);
      Random draw(key({seed, what, worker, k}));
      const double slow = Random(key({seed, what, worker})).uniform() < 0.3 ? 4 : 1;
      const double spike = draw.uniform() < 0.2 ? 10 : 1;
      return from_seconds(draw.uniform(0, 1e-4) * slow * spike);
    };
  };
  s.compute = duration(1);
  s.read = duration(2);
  return s;
}

TEST(RingDepth, the_depth_of_the_proof_holds_on_random_schedules) {
  testing::for_seeds(2000, [](std::uint64_t seed) {
    Scenario s = random_scenario(seed);
    s.depth = enough(s);
    EXPECT_THAT(violations_of(s), ::testing::IsEmpty());
  });
}

// So that the test above is known to look where it hurts: with one slot fewer each mode breaks.
TEST(RingDepth, one_slot_fewer_breaks_on_random_schedules_in_every_mode) {
  int broken[3] = {};
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Scenario s = random_scenario(seed);
    s.depth = enough(s) - 1;
    if (!violations_of(s).empty()) ++broken[static_cast<int>(s.mode)];
  }
  for (const int count : broken) EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace slip
