#include "slipstream/runtime/simulator.h"

#include <gmock/gmock.h>

#include <chrono>
#include <cmath>
#include <exception>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/launch.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

LaunchOptions simulated() {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.stack_bytes = 64 * 1024;
  return options;
}

sim::NetworkOptions links() {
  sim::NetworkOptions network;
  network.link = {1e8, 20us};
  network.inner_link = {1e9, 1us};
  network.workers_per_host = 2;
  return network;
}

/// Random work of workers that compute, write to each other and wait; returns what happened, in
/// order and with its time.
std::vector<std::string> history(std::uint64_t seed) {
  std::vector<std::string> trace;
  LaunchOptions options = simulated();
  options.world.network = links();
  options.faults = FaultPlan{.seed = seed, .delay_probability = 0.3, .max_delay = 1ms};
  constexpr int workers = 6;
  launch(
      workers,
      [&](World& world) {
        Random random(key({seed, static_cast<std::uint64_t>(world.rank())}));
        const Region region = world.allocate("r", 64 * workers);
        std::vector<RemoteRegion> peers;
        for (int peer = 0; peer < workers; ++peer) peers.push_back(world.attach(peer, "r"));
        const std::vector<std::byte> payload(5000);
        for (Word k = 1; k <= 20; ++k) {
          world.set_compute_time(Duration(static_cast<Duration::rep>(random.below(2'000'000))));
          world.compute([] {});
          const std::size_t own = 64 * static_cast<std::size_t>(world.rank());
          for (const RemoteRegion& peer : peers) {
            EXPECT_TRUE(world.transport().put(peer, own + 8, payload.data(), 48).ok());
            EXPECT_TRUE(world.transport().put_signal(peer, 0, nullptr, 0, own, k).ok());
          }
          const auto from = random.below(workers);
          EXPECT_TRUE(
              world.wait_until([&] { return region.word(64 * from) >= k; }, never, "a peer").ok());
          trace.push_back(std::to_string(world.now().count()) + " rank " +
                          std::to_string(world.rank()) + " at " + std::to_string(k) + " sees " +
                          std::to_string(region.word(64 * from)));
        }
      },
      options);
  return trace;
}

TEST(Simulator, one_seed_has_one_history) {
  testing::for_seeds(20, [](std::uint64_t seed) {
    const auto first = history(seed);
    EXPECT_EQ(first.size(), 120u);
    EXPECT_EQ(first, history(seed));
    EXPECT_NE(first, history(seed + 1'000'000));
  });
}

TEST(Simulator, a_wait_ends_exactly_at_its_deadline) {
  launch(
      2,
      [](World& world) {
        for (const Duration pause : {0ns, 1ns, 5000ns}) {
          const Time end = world.now() + pause;
          EXPECT_EQ(world.wait_until([] { return false; }, end, "nothing").code(), Code::timeout);
          EXPECT_EQ(world.now(), end);
        }
      },
      simulated());
}

TEST(Simulator, an_earlier_deadline_does_not_shorten_a_later_one) {
  launch(
      1,
      [](World& world) {
        const Time start = world.now();
        (void)world.wait_until([] { return false; }, start + 10ms, "nothing");
        (void)world.wait_until([&] { return world.now() >= start + 12ms; }, start + 1h, "nothing");
        world.set_compute_time(1ms);
        world.compute([] {});
        (void)world.wait_until([] { return false; }, start + 2h, "nothing");
        EXPECT_EQ(world.now(), start + 2h);
      },
      simulated());
}

TEST(Simulator, a_put_arrives_after_latency_and_transfer) {
  LaunchOptions options = simulated();
  options.world.network.link = {1e6, 1ms};
  launch(
      2,
      [](World& world) {
        const Region region = world.allocate("r", 2048);
        const RemoteRegion peer = world.attach(1 - world.rank(), "r");
        if (world.rank() == 0) {
          const std::vector<std::byte> payload(992);
          EXPECT_TRUE(
              world.transport().put_signal(peer, 64, payload.data(), payload.size(), 0, 1).ok());
        } else {
          EXPECT_TRUE(world.wait_until([&] { return region.word(0) == 1; }, never, "it").ok());
          EXPECT_EQ(world.now(), 2ms);  // 1000 bytes with the word
        }
      },
      options);
}

TEST(Simulator, computing_is_not_ended_by_what_arrives) {
  launch(
      2,
      [](World& world) {
        const Region region = world.allocate("r", 64);
        const RemoteRegion peer = world.attach(1 - world.rank(), "r");
        if (world.rank() == 0) {
          for (Word k = 1; k <= 100; ++k) {
            EXPECT_TRUE(world.transport().put_signal(peer, 0, nullptr, 0, 0, k).ok());
            world.set_compute_time(10us);
            world.compute([] {});
          }
        } else {
          const Time start = world.now();
          world.set_compute_time(700us);
          world.compute([] {});
          EXPECT_EQ(world.now(), start + 700us);
          EXPECT_GT(region.word(0), 60u);
        }
      },
      simulated());
}

TEST(Simulator, work_runs_on_threads_beside_that_of_other_workers) {
  LaunchOptions options = simulated();
  options.compute_threads = 2;
  // Each waits for the other's work to have begun, which only works side by side.
  std::latch both_begun(2);
  launch(
      2,
      [&](World& world) {
        const auto fiber_thread = std::this_thread::get_id();
        std::thread::id work_thread;
        world.set_compute_time(3ms);
        world.compute([&] {
          work_thread = std::this_thread::get_id();
          both_begun.arrive_and_wait();
        });
        EXPECT_NE(work_thread, fiber_thread);
        EXPECT_EQ(world.now(), Time(3ms));
      },
      options);
}

TEST(Simulator, what_work_throws_on_a_thread_reaches_its_worker) {
  LaunchOptions options = simulated();
  options.compute_threads = 1;
  launch(
      3,
      [&](World& world) {
        world.set_compute_time(1ms);
        EXPECT_THROW(world.compute([] { throw std::runtime_error("no gradient"); }),
                     std::runtime_error);
        EXPECT_EQ(world.now(), Time(1ms));
      },
      options);
}

TEST(Simulator, threads_change_nothing_in_the_history) {
  const auto sum = [](int threads) {
    LaunchOptions options = simulated();
    options.world.network = links();
    options.compute_threads = threads;
    std::vector<std::pair<Time, double>> trace;
    launch(
        5,
        [&](World& world) {
          Random random(key({7, static_cast<std::uint64_t>(world.rank())}));
          double value = 0;
          for (int k = 0; k < 50; ++k) {
            world.set_compute_time(Duration(static_cast<Duration::rep>(random.below(1'000'000))));
            world.compute([&] { value = std::sin(value + random.uniform()); });
            trace.emplace_back(world.now(), value);
          }
        },
        options);
    return trace;
  };
  EXPECT_EQ(sum(0), sum(3));
}

TEST(Simulator, a_crashed_worker_is_lost_to_all_others) {
  LaunchOptions options = simulated();
  options.crashes = {{.rank = 1, .at = 5ms, .noticed_after = 2ms}};
  std::vector<Status> ends(3);
  std::vector<Time> at(3);
  try {
    launch(
        3,
        [&](World& world) {
          const auto me = static_cast<std::size_t>(world.rank());
          ends[me] = world.wait_until([] { return false; }, never, "nothing");
          at[me] = world.now();
          ends[me].throw_if_failed();
        },
        options);
    FAIL() << "nobody was lost";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::peer_lost);
    EXPECT_EQ(error.peer(), 1);
  }
  EXPECT_EQ(at, (std::vector<Time>{7ms, 5ms, 7ms}));
  EXPECT_EQ(ends[1].code(), Code::aborted);
  for (const std::size_t other : {0, 2}) {
    EXPECT_EQ(ends[other].code(), Code::peer_lost);
    EXPECT_EQ(ends[other].peer(), 1);
  }
}

TEST(Simulator, what_a_worker_put_before_it_crashed_arrives_and_nothing_after) {
  LaunchOptions options = simulated();
  options.world.network.link.latency = 10ms;
  options.crashes = {{.rank = 1, .at = 5ms, .noticed_after = 1s}};
  Word seen = 0;
  try {
    launch(
        2,
        [&](World& world) {
          const Region region = world.allocate("r", 64);
          const RemoteRegion peer = world.attach(1 - world.rank(), "r");
          if (world.rank() == 0) {
            (void)world.wait_until([] { return false; }, never, "the loss");
            seen = region.word(0);
            world.status().throw_if_failed();
          }
          (void)world.transport().put_signal(peer, 0, nullptr, 0, 0, 1);
          (void)world.wait_until([] { return false; }, never, "the end");
          (void)world.transport().put_signal(peer, 0, nullptr, 0, 0, 2);
        },
        options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::peer_lost);
  }
  EXPECT_EQ(seen, 1U);
}

TEST(Simulator, an_observer_passes_the_modelled_links_by) {
  LaunchOptions options = simulated();
  options.world.network.link = {1.0, 1s};
  launch(
      2,
      [&](World& world) {
        const Region region = world.allocate("r", 64);
        const RemoteRegion peer = world.attach(world.observer(), 1 - world.rank(), "r");
        ASSERT_TRUE(world.observer().put_signal(peer, 0, nullptr, 0, 0, 1).ok());
        ASSERT_TRUE(world.wait_until([&] { return region.word(0) == 1; }, never, "it").ok());
        EXPECT_EQ(world.now(), Time(0));
      },
      options);
}

TEST(Simulator, a_deadlock_is_reported_with_the_ranks_that_wait) {
  try {
    launch(
        5,
        [](World& world) {
          if (world.rank() % 2 == 0) {
            world.set_compute_time(1s);
            world.compute([] {});
            world.wait_until([] { return false; }, never, "a friend").throw_if_failed();
          }
        },
        simulated());
    ADD_FAILURE() << "no deadlock was found";
  } catch (const Error& error) {
    // 1 and 3 wait for the others' goodbye.
    EXPECT_THAT(error.what(), AllOf(HasSubstr("deadlock"), HasSubstr("1 s"), HasSubstr("5 workers"),
                                    HasSubstr("0 1 2 3 4")));
  }
}

TEST(Simulator, a_deadlock_among_some_names_only_them) {
  try {
    launch(
        12,
        [](World& world) {
          world.goodbye();
          if (world.rank() == 3 || world.rank() == 7) {
            world.wait_until([] { return false; }, never, "a friend").throw_if_failed();
          }
        },
        simulated());
    ADD_FAILURE() << "no deadlock was found";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("2 workers"), HasSubstr("(ranks 3 7)")));
  }
}

TEST(Simulator, waiting_inside_a_catch_block_keeps_the_workers_own_exception) {
  launch(
      8,
      [](World& world) {
        const std::string own = "of rank " + std::to_string(world.rank());
        const auto pause = [&](Duration duration) {
          world.set_compute_time(duration);
          world.compute([] {});
        };
        try {
          try {
            pause(world.rank() * 1us);
            throw std::runtime_error(own);
          } catch (...) {
            pause((8 - world.rank()) * 3us);
            throw;
          }
        } catch (const std::exception& error) {
          pause(2us);
          EXPECT_EQ(error.what(), own);
          EXPECT_NE(std::current_exception(), nullptr);
        }
        EXPECT_EQ(std::uncaught_exceptions(), 0);
        pause(1us);
      },
      simulated());
}

// Each answer asks the next question: a chain of services through two workers must not nest.
TEST(Simulator, services_that_answer_each_other_do_not_nest) {
  constexpr Word rallies = 100'000;
  launch(
      2,
      [](World& world) {
        const Region region = world.allocate("table", 64, Bell::progress);
        const RemoteRegion peer = world.attach(1 - world.rank(), "table");
        Word seen = 0;
        const auto service = world.progress().serve(world.transport(), [&] {
          const Word ball = region.word(0);
          if (ball == seen) return false;
          seen = ball;
          if (ball < rallies) {
            EXPECT_TRUE(world.transport().put_signal(peer, 0, nullptr, 0, 0, ball + 1).ok());
          }
          return true;
        });
        if (world.rank() == 0) {
          EXPECT_TRUE(world.transport().put_signal(peer, 0, nullptr, 0, 0, 1).ok());
        }
        EXPECT_TRUE(
            world.wait_until([&] { return seen >= rallies - 1; }, never, "the end of the game")
                .ok());
        world.goodbye();
      },
      simulated());
}

TEST(Simulator, a_service_sees_what_came_before_it_was_registered) {
  launch(
      2,
      [](World& world) {
        const Region region = world.allocate("r", 64, Bell::progress);
        const RemoteRegion peer = world.attach(1 - world.rank(), "r");
        EXPECT_TRUE(world.transport().put_signal(peer, 0, nullptr, 0, 0, 1).ok());
        world.set_compute_time(1ms);
        world.compute([] {});
        bool served = false;
        const auto service = world.progress().serve(world.transport(), [&] {
          served = region.word(0) == 1;
          return false;
        });
        EXPECT_TRUE(world.wait_until([&] { return served; }, never, "the service").ok());
        world.goodbye();
      },
      simulated());
}

TEST(Simulator, a_thousand_workers_pass_a_word_around) {
  constexpr int workers = 1024;
  LaunchOptions options = simulated();
  options.world.network.link.latency = 1us;
  Time finished{0};
  launch(
      workers,
      [&](World& world) {
        const Region region = world.allocate("r", 64);
        const RemoteRegion next = world.attach((world.rank() + 1) % workers, "r");
        for (Word lap = 1; lap <= 3; ++lap) {
          const auto pass = [&] {
            EXPECT_TRUE(world.transport().put_signal(next, 0, nullptr, 0, 0, lap).ok());
          };
          if (world.rank() == 0) pass();
          EXPECT_TRUE(world.wait_until([&] { return region.word(0) == lap; }, never, "it").ok());
          if (world.rank() != 0) pass();
        }
        if (world.rank() == 0) finished = world.now();
      },
      options);
  EXPECT_EQ(finished, 3 * workers * 1us);
}

TEST(Simulator, counts_its_events_and_messages) {
  sim::Simulator simulator(2, {links(), 64 * 1024});
  simulator.run([&](int rank) {
    sim::SimTransport transport(simulator.fabric(), rank);
    const Region region = transport.allocate(64, Bell::worker, gpu::host);
    const RemoteRegion self = transport.attach(rank, region.key());
    EXPECT_TRUE(transport.put_signal(self, 0, nullptr, 0, 0, 1).ok());
    EXPECT_TRUE(simulator.waiter(rank).wait([&] { return region.word(0) == 1; }, never).ok());
  });
  EXPECT_EQ(simulator.fabric().messages(), 2u);
  EXPECT_EQ(simulator.events().executed(), 4u) << "a message's first byte, and all of it";
}

}  // namespace
}  // namespace slip
