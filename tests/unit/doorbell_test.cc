#include "slipstream/transport/doorbell.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include "slipstream/base/random.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

/// With the sleepers' fence (membarrier), and with the writers'.
class DoorbellTest : public ::testing::TestWithParam<bool> {
 protected:
  DoorbellTest() { doorbell.writers_fence = GetParam(); }
  Doorbell doorbell;
};

TEST_P(DoorbellTest, nobody_is_woken_while_nobody_sleeps) {
  EXPECT_FALSE(must_wake(doorbell, Bell::worker));
  EXPECT_FALSE(must_wake(doorbell, Bell::progress));
}

TEST_P(DoorbellTest, one_of_several_writers_wakes_a_sleeper) {
  announce_sleeper(doorbell, Bell::worker);
  std::atomic<int> wakers{0};
  {
    std::vector<std::jthread> writers;
    for (int i = 0; i < 8; ++i) {
      writers.emplace_back([&] { wakers += must_wake(doorbell, Bell::worker); });
    }
  }
  EXPECT_EQ(wakers, 1);
  EXPECT_FALSE(must_wake(doorbell, Bell::worker));
}

TEST_P(DoorbellTest, worker_and_progress_thread_are_woken_apart) {
  announce_sleeper(doorbell, Bell::progress);
  EXPECT_FALSE(must_wake(doorbell, Bell::worker));
  announce_sleeper(doorbell, Bell::worker);
  EXPECT_TRUE(must_wake(doorbell, Bell::progress));
  EXPECT_TRUE(must_wake(doorbell, Bell::worker));
}

TEST_P(DoorbellTest, who_has_withdrawn_is_not_woken) {
  announce_sleeper(doorbell, Bell::worker);
  announce_sleeper(doorbell, Bell::progress);
  withdraw_sleeper(doorbell, Bell::worker);
  EXPECT_FALSE(must_wake(doorbell, Bell::worker));
  EXPECT_TRUE(must_wake(doorbell, Bell::progress));
}

TEST_P(DoorbellTest, a_wake_up_before_the_sleep_is_not_lost) {
  const std::uint32_t seen = doorbell.events;
  wake_worker(doorbell);
  sleep_on(doorbell, seen, 1h);  // returns at once, or the test does not end
  EXPECT_NE(doorbell.events, seen);
}

TEST_P(DoorbellTest, sleep_ends_at_its_time_out) {
  const std::uint32_t seen = doorbell.events;
  sleep_on(doorbell, seen, 1ms);
  sleep_on(doorbell, seen, -1ms);
  EXPECT_EQ(doorbell.events, seen);
}

// The race of every sleeper: a write between its last look and its sleep. The two sides meet before
// each round and then go at it at once. A wake-up that is lost shows as a sleep to its end with the
// word there. SLIP_TEST_ROUNDS=2000000 is the long form: enough to catch a missing fence.
TEST_P(DoorbellTest, no_wake_up_is_lost_in_a_race) {
  constexpr Duration longest = 20s;
  const char* text = std::getenv("SLIP_TEST_ROUNDS");
  const std::uint64_t rounds = text == nullptr ? 5'000 : std::strtoull(text, nullptr, 10);
  std::atomic<std::uint64_t> word{0};
  std::atomic<std::uint64_t> arrived{0};
  std::atomic<int> lost{0};
  const auto meet = [&](std::uint64_t round) {
    ++arrived;
    while (arrived < 2 * round) std::this_thread::yield();
  };
  const auto dawdle = [](Random& random) {
    for (std::uint64_t i = random.below(60); i > 0; --i) {
      std::atomic_signal_fence(std::memory_order_seq_cst);  // keeps the loop
    }
  };
  {
    std::jthread writer([&] {
      Random random(1);
      for (std::uint64_t round = 1; round <= rounds; ++round) {
        meet(round);
        dawdle(random);
        word.store(round, std::memory_order_release);
        if (must_wake(doorbell, Bell::worker)) wake_worker(doorbell);
      }
    });
    std::jthread sleeper([&] {
      Random random(2);
      for (std::uint64_t round = 1; round <= rounds; ++round) {
        meet(round);
        dawdle(random);
        const auto here = [&] { return word.load(std::memory_order_acquire) >= round; };
        while (!here()) {
          const std::uint32_t seen = doorbell.events.load(std::memory_order_acquire);
          announce_sleeper(doorbell, Bell::worker);
          if (!here()) {
            const auto start = std::chrono::steady_clock::now();
            if (lost == 0) sleep_on(doorbell, seen, longest);
            if (std::chrono::steady_clock::now() - start >= longest && here()) ++lost;
          }
          withdraw_sleeper(doorbell, Bell::worker);
        }
      }
    });
  }
  EXPECT_EQ(lost, 0);
}

INSTANTIATE_TEST_SUITE_P(Fences, DoorbellTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "writers" : "sleepers"; });

TEST(Fences, this_kernel_is_asked_once_and_answers_the_same) {
  EXPECT_EQ(asymmetric_fences(), asymmetric_fences());
  asymmetric_fence();  // allowed in any case
}

}  // namespace
}  // namespace slip
