#include "slipstream/transport/sim/event_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "slipstream/base/random.h"

namespace slip::sim {
namespace {

using namespace std::chrono_literals;

/// What ran, with the time at which it did.
struct Log {
  EventQueue queue;
  std::vector<std::pair<Time, std::uint64_t>> ran;

  Event event(std::uint64_t name) {
    return {[](void* log, std::uint64_t argument) {
              auto* self = static_cast<Log*>(log);
              self->ran.emplace_back(self->queue.now(), argument);
            },
            this, name};
  }
  void run_all() {
    while (!queue.empty()) queue.run_one();
  }
};

TEST(EventQueue, an_empty_queue_has_no_next_time) {
  const EventQueue queue;
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.next_time(), never);
  EXPECT_EQ(queue.now(), Time(0));
}

TEST(EventQueue, events_run_in_order_of_time) {
  Log log;
  log.queue.schedule(3s, log.event(3));
  log.queue.schedule(1s, log.event(1));
  log.queue.schedule(2s, log.event(2));
  EXPECT_EQ(log.queue.next_time(), 1s);
  log.run_all();
  EXPECT_EQ(log.ran, (std::vector<std::pair<Time, std::uint64_t>>{{1s, 1}, {2s, 2}, {3s, 3}}));
  EXPECT_EQ(log.queue.executed(), 3u);
}

TEST(EventQueue, events_of_one_time_run_as_they_were_scheduled) {
  Log log;
  for (std::uint64_t i = 0; i < 1000; ++i) log.queue.schedule(1s, log.event(i));
  log.run_all();
  for (std::uint64_t i = 0; i < 1000; ++i) EXPECT_EQ(log.ran[i].second, i);
}

TEST(EventQueue, what_is_scheduled_in_the_past_runs_now) {
  Log log;
  log.queue.schedule(5s, log.event(1));
  log.queue.run_one();
  log.queue.schedule(2s, log.event(2));
  log.run_all();
  EXPECT_EQ(log.ran.back(), (std::pair<Time, std::uint64_t>(5s, 2)));
}

TEST(EventQueue, agrees_with_a_stable_sort) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Random random(seed);
    Log log;
    std::vector<std::pair<Time, std::uint64_t>> expected;
    const auto add = [&](std::uint64_t name) {
      const Time at = log.queue.now() + Time(static_cast<Time::rep>(random.below(50)));
      log.queue.schedule(at, log.event(name));
      expected.emplace_back(at, name);
    };
    for (std::uint64_t i = 0; i < 2000; ++i) {
      if (random.below(3) > 0 || log.queue.empty()) {
        add(i);
      } else {
        log.queue.run_one();
      }
    }
    log.run_all();
    std::stable_sort(expected.begin(), expected.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    EXPECT_EQ(log.ran, expected) << "seed " << seed;
  }
}

TEST(EventQueue, an_event_may_schedule_the_next) {
  struct Chain {
    EventQueue queue;
    int links = 0;
    void add() {
      queue.schedule(queue.now() + 1ns, {[](void* self, std::uint64_t) {
                                           auto* chain = static_cast<Chain*>(self);
                                           if (++chain->links < 100) chain->add();
                                         },
                                         this, 0});
    }
  } chain;
  chain.add();
  while (!chain.queue.empty()) chain.queue.run_one();
  EXPECT_EQ(chain.links, 100);
  EXPECT_EQ(chain.queue.now(), 100ns);
}

}  // namespace
}  // namespace slip::sim
