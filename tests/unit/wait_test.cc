#include "slipstream/runtime/wait.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>

namespace slip {
namespace {

using namespace std::chrono_literals;

TEST(AbortToken, the_first_reason_wins) {
  AbortToken token;
  EXPECT_FALSE(token.aborted());
  EXPECT_TRUE(token.reason().ok());
  token.abort({Code::peer_lost, "the cause", 3});
  token.abort({Code::aborted, "a consequence"});
  EXPECT_TRUE(token.aborted());
  EXPECT_EQ(token.reason().code(), Code::peer_lost);
  EXPECT_EQ(token.reason().peer(), 3);
  EXPECT_EQ(token.reason().message(), "the cause");
}

/// With the longest busy wait as its parameter, in microseconds.
class RealWaiterTest : public ::testing::TestWithParam<int> {
 protected:
  std::shared_ptr<Doorbell> doorbell = std::make_shared<Doorbell>();
  std::shared_ptr<RealClock> clock = std::make_shared<RealClock>();
  std::shared_ptr<AbortToken> abort = std::make_shared<AbortToken>();
  // With the deadline as its only alarm clock, so that a lost wake-up is seen.
  RealWaiter waiter{doorbell, clock, abort, std::chrono::microseconds(GetParam()), nullptr, never};

  void SetUp() override { doorbell->writers_fence = !asymmetric_fences(); }
  void ring() {
    if (must_wake(*doorbell, Bell::worker)) wake_worker(*doorbell);
  }
};

TEST_P(RealWaiterTest, a_condition_that_holds_ends_the_wait_at_once) {
  EXPECT_TRUE(waiter.wait([] { return true; }, never).ok());
  EXPECT_TRUE(waiter.wait([] { return true; }, Time(0)).ok()) << "although the deadline has passed";
  abort->abort({Code::aborted, "reason"});
  EXPECT_TRUE(waiter.wait([] { return true; }, never).ok()) << "although it is aborted";
}

TEST_P(RealWaiterTest, the_deadline_ends_the_wait) {
  const Time deadline = clock->now() + 5ms;
  EXPECT_EQ(waiter.wait([] { return false; }, deadline).code(), Code::timeout);
  EXPECT_GE(clock->now(), deadline);
}

TEST_P(RealWaiterTest, a_write_with_a_ring_ends_the_wait) {
  std::atomic<int> word{0};
  std::jthread writer([&] {
    for (int i = 1; i <= 50; ++i) {
      std::this_thread::sleep_for(i % 2 == 0 ? 1ms : 0ms);
      word.store(i, std::memory_order_release);
      ring();
    }
  });
  for (int i = 1; i <= 50; ++i) {
    ASSERT_TRUE(
        waiter.wait([&] { return word.load(std::memory_order_acquire) >= i; }, clock->now() + 60s)
            .ok());
  }
}

// What is written between the last look and the announcement rings nobody.
TEST_P(RealWaiterTest, the_condition_is_looked_at_again_once_the_sleeper_is_announced) {
  const auto announced = [&] {
    return (doorbell->sleepers & static_cast<std::uint32_t>(Bell::worker)) != 0;
  };
  EXPECT_TRUE(waiter.wait(announced, clock->now() + 2s).ok());
  EXPECT_FALSE(announced()) << "and is none when it has not slept";
}

TEST_P(RealWaiterTest, an_abort_ends_a_parked_wait_with_its_reason) {
  std::jthread other([&] {
    std::this_thread::sleep_for(5ms);
    abort->abort({Code::peer_lost, "rank 1 has gone", 1});
    waiter.wake();
  });
  const Status status = waiter.wait([] { return false; }, never);
  EXPECT_EQ(status.code(), Code::peer_lost);
  EXPECT_EQ(status.peer(), 1);
}

TEST_P(RealWaiterTest, an_earlier_abort_ends_the_wait) {
  abort->abort({Code::aborted, "before"});
  EXPECT_EQ(waiter.wait([] { return false; }, never).code(), Code::aborted);
  EXPECT_EQ(waiter.sleep_until(never).code(), Code::aborted);
}

TEST_P(RealWaiterTest, sleep_lasts_through_writes_and_wake_ups) {
  const Time end = clock->now() + 20ms;
  std::jthread writer([&] {
    for (int i = 0; i < 10; ++i) {
      ring();
      waiter.wake();
      std::this_thread::sleep_for(1ms);
    }
  });
  EXPECT_TRUE(waiter.sleep_until(end).ok());
  EXPECT_GE(clock->now(), end);
}

/// Each time that it is read, `step` later.
struct SteppingClock final : Clock {
  Time now() const override { return time += step; }
  mutable Time time{0};
  Duration step{0};
};

TEST(RealWaiter, looks_for_longer_after_what_came_before_others_could_have_run) {
  const auto clock = std::make_shared<SteppingClock>();
  RealWaiter waiter(std::make_shared<Doorbell>(), clock, std::make_shared<AbortToken>(), 50us);
  const auto looks = [&] {
    int count = 0;
    EXPECT_FALSE(waiter.glance([&] { return ++count < 0; }));
    return count;
  };
  const auto wait = [&] { EXPECT_TRUE(waiter.wait([] { return true; }, never).ok()); };
  int least = looks();
  for (int fewer; (fewer = looks()) < least;) least = fewer;
  clock->step = 2us;
  wait();
  EXPECT_EQ(looks(), least);
  clock->step = 0us;
  wait();
  EXPECT_GT(looks(), least);
}

TEST_P(RealWaiterTest, an_abort_ends_a_sleep) {
  std::jthread other([&] {
    std::this_thread::sleep_for(5ms);
    abort->abort({Code::stopped, "enough"});
    waiter.wake();
  });
  EXPECT_EQ(waiter.sleep_until(never).code(), Code::stopped);
}

INSTANTIATE_TEST_SUITE_P(Spin, RealWaiterTest, ::testing::Values(0, 50),
                         [](const auto& info) { return std::to_string(info.param) + "us"; });

}  // namespace
}  // namespace slip
