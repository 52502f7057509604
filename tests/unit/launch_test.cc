#include "slipstream/runtime/launch.h"

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class LaunchTest : public ::testing::TestWithParam<LaunchKind> {
 protected:
  LaunchTest() { options.kind = GetParam(); }
  LaunchOptions options;
};

TEST_P(LaunchTest, runs_every_rank_once_and_returns_when_all_have_returned) {
  std::vector<std::atomic<int>> ran(5);
  launch(
      5,
      [&](World& world) {
        EXPECT_EQ(world.size(), 5);
        EXPECT_EQ(world.incarnation(), 1);
        EXPECT_FALSE(world.aborted());
        world.set_compute_time(world.rank() * 2ms);
        world.compute([] {});
        ++ran[static_cast<std::size_t>(world.rank())];
      },
      options);
  for (const auto& count : ran) EXPECT_EQ(count, 1);
}

TEST_P(LaunchTest, what_nobody_needs_is_not_computed_to_its_end) {
  launch(
      2,
      [](World& world) {
        const Region here = world.allocate("word", 8);
        const RemoteRegion there = world.attach(1 - world.rank(), "word");
        world.bootstrap().fence(never);  // rank 0's is there until rank 1 has it
        const auto told = [&] { return here.word(0) != 0; };
        if (world.rank() == 0) {
          world.set_compute_time(10ms);
          world.compute([] {});
          world.transport().put_signal(there, 0, nullptr, 0, 0, make_word(1, 0)).throw_if_failed();
          return;
        }
        world.set_compute_time(1h);
        world.cut_compute_short(told);
        bool ran = false;
        world.compute([&] { ran = true; });
        EXPECT_TRUE(ran && told());
        world.compute([&] { ran = false; });
        EXPECT_FALSE(ran) << "the work itself is always done";
        world.cut_compute_short({});
        world.set_compute_time({});
      },
      options);
}

TEST_P(LaunchTest, a_name_is_published_once) {
  launch(
      2,
      [](World& world) {
        Bootstrap& bootstrap = world.bootstrap();
        if (world.rank() == 0) bootstrap.put("name", "first");
        bootstrap.fence(never);
        try {
          bootstrap.put("name", "second");
          ADD_FAILURE() << "accepted";
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), Code::bootstrap_failed);
          EXPECT_EQ(error.what(), "rank " + std::to_string(world.rank()) +
                                      " published 'name', which rank 0 had published before");
        }
        EXPECT_EQ(bootstrap.get("name", never), "first");
        bootstrap.fence(never);
      },
      options);
}

TEST_P(LaunchTest, no_workers_are_refused) {
  EXPECT_THROW(launch(
                   0, [](World&) {}, options),
               Error);
  EXPECT_THROW(launch(
                   -3, [](World&) {}, options),
               Error);
}

TEST_P(LaunchTest, a_workers_error_ends_the_waits_of_the_others_and_is_thrown) {
  std::atomic<int> told{0};
  try {
    launch(
        4,
        [&](World& world) {
          if (world.rank() == 2) {
            world.set_compute_time(5ms);
            world.compute([] {});
            throw Error(Code::bad_data, "the data are bad");
          }
          const Status status = world.wait_until([] { return false; }, never, "what never comes");
          EXPECT_EQ(status.code(), Code::aborted);
          EXPECT_EQ(status.peer(), 2);
          EXPECT_THAT(status.message(), HasSubstr("rank 2: the data are bad"));
          EXPECT_TRUE(world.aborted());
          ++told;
          status.throw_if_failed();  // a consequence, and not what launch throws
        },
        options);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::bad_data);
    EXPECT_STREQ(error.what(), "the data are bad");
  }
  EXPECT_EQ(told, 3);
}

TEST_P(LaunchTest, exceptions_of_any_type_come_through) {
  EXPECT_THROW(launch(
                   2, [](World&) { throw std::out_of_range("user's own"); }, options),
               std::out_of_range);
  EXPECT_THROW(launch(
                   2, [](World&) { throw 7; }, options),
               int);
}

TEST_P(LaunchTest, an_error_ends_waits_at_set_up_and_goodbye) {
  EXPECT_THROW(launch(
                   3,
                   [](World& world) {
                     if (world.rank() == 0) throw std::runtime_error("early");
                     if (world.rank() == 1) {
                       EXPECT_THROW((void)world.attach(0, "never"), Error);
                     } else {
                       EXPECT_THROW(world.goodbye(), Error);
                     }
                   },
                   options),
               std::runtime_error);
}

TEST_P(LaunchTest, who_leaves_without_goodbye_ends_the_goodbye_of_the_others) {
  launch(
      3,
      [](World& world) {
        if (world.rank() == 1) {
          world.abort({Code::stopped, "by itself"});
          return;
        }
        try {
          world.goodbye();
          ADD_FAILURE() << "not all have said goodbye";
        } catch (const Error& error) {
          EXPECT_THAT(error.what(), HasSubstr("rank 1"));
        }
      },
      options);
}

TEST_P(LaunchTest, worlds_of_one_process_do_not_touch_each_other) {
  std::vector<std::jthread> worlds;
  for (int w = 0; w < 3; ++w) {
    worlds.emplace_back([&, w] {
      launch(
          3,
          [w](World& world) {
            const Region region = world.allocate("same name", 64);
            const RemoteRegion next = world.attach((world.rank() + 1) % 3, "same name");
            const Word word = 100 + static_cast<Word>(w);
            EXPECT_TRUE(world.transport().put_signal(next, 0, nullptr, 0, 0, word).ok());
            EXPECT_TRUE(
                world.wait_until([&] { return region.word(0) != 0; }, world.deadline(), "the word")
                    .ok());
            EXPECT_EQ(region.word(0), word);
          },
          options);
    });
  }
}

TEST_P(LaunchTest, compute_runs_the_work_and_lasts_as_long_as_set) {
  launch(
      2,
      [](World& world) {
        world.set_compute_time(20ms);
        const Time start = world.now();
        bool ran = false;
        world.compute([&] { ran = true; });
        EXPECT_TRUE(ran);
        EXPECT_GE(world.now() - start, 20ms);
        EXPECT_GE(world.counters().compute_ns.get(), 20'000'000u);
        if (world.clock().is_virtual()) {
          EXPECT_EQ(world.now() - start, 20ms);
        }
      },
      options);
}

INSTANTIATE_TEST_SUITE_P(Kinds, LaunchTest,
                         ::testing::Values(LaunchKind::threads, LaunchKind::simulated),
                         [](const auto& info) {
                           return info.param == LaunchKind::threads ? "threads" : "simulated";
                         });

}  // namespace
}  // namespace slip
