#include "slipstream/transport/doorbell.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

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

// The race of every sleeper: a write between its last look and its sleep. Two threads take turns as
// fast as they can, and each parks before every turn. A wake-up that is lost would show as a sleep
// to its end with the word there.
TEST_P(DoorbellTest, no_wake_up_is_lost_in_a_race) {
  constexpr Duration longest = 20s;
  constexpr std::uint64_t turns = 20000;
  struct Player {
    Doorbell doorbell;
    std::atomic<std::uint64_t> word{0};
  };
  Player players[2];
  for (Player& player : players) player.doorbell.writers_fence = GetParam();
  std::atomic<int> lost{0};
  const auto play = [&](Player& own, Player& other, bool serves) {
    for (std::uint64_t turn = 1; turn <= turns && lost == 0; ++turn) {
      const auto post = [&] {
        other.word.store(turn, std::memory_order_release);
        if (must_wake(other.doorbell, Bell::worker)) wake_worker(other.doorbell);
      };
      if (serves) post();
      const auto here = [&] { return own.word.load(std::memory_order_acquire) >= turn; };
      while (!here() && lost == 0) {
        const std::uint32_t seen = own.doorbell.events.load(std::memory_order_acquire);
        announce_sleeper(own.doorbell, Bell::worker);
        if (!here()) {
          const auto start = std::chrono::steady_clock::now();
          sleep_on(own.doorbell, seen, longest);
          if (std::chrono::steady_clock::now() - start >= longest && here()) ++lost;
        }
        withdraw_sleeper(own.doorbell, Bell::worker);
      }
      if (!serves) post();
    }
  };
  {
    std::jthread first([&] { play(players[0], players[1], true); });
    std::jthread second([&] { play(players[1], players[0], false); });
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
