#include "slipstream/collectives/all_reduce.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "averaging.h"
#include "slipstream/runtime/launch.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::fill;
using ::testing::HasSubstr;
using testing::large;
using testing::options_of;
using testing::Path;
using testing::same_bits;

/// For rounds 0, 1, ...
template <class T>
std::vector<std::vector<T>> expected_means(Path path, int workers, std::size_t count, int rounds) {
  const Group all{1, testing::everyone(workers)};
  const auto hosts = testing::hosts_of(workers, options_of(path), count, dtype_of<T>(),
                                       PartialAllReduceOptions{}, {all})
                         .front();
  std::vector<std::vector<T>> means;
  for (int round = 0; round < rounds; ++round) {
    means.push_back(
        testing::expected_mean<T>(all.members, count, static_cast<std::uint64_t>(round), hosts));
  }
  return means;
}

/// How the workers call it.
enum class Memory { registered, users, mixed };

class AllReduceTest : public ::testing::TestWithParam<std::tuple<Path, int>> {
 protected:
  static Path path() { return std::get<0>(GetParam()); }
  static int workers() { return std::get<1>(GetParam()); }
  static void run(const std::function<void(World&)>& work) {
    launch(workers(), work, options_of(path()));
  }

  /// The means of `expected`, a round each.
  template <class T>
  static void expect_means(const std::vector<std::vector<T>>& expected, Memory memory,
                           bool in_place) {
    const auto rounds = static_cast<int>(expected.size());
    const std::size_t count = expected.front().size();
    run([&](World& world) {
      AllReduce all_reduce(world, "vector", count, dtype_of<T>(), {.in_place = in_place});
      std::vector<T> own(count);
      for (int round = 0; round < rounds; ++round) {
        const bool registered = memory == Memory::registered ||
                                (memory == Memory::mixed && (round + world.rank()) % 2 == 0);
        fill<T>(registered ? all_reduce.buffer().as<T>() : std::span(own), world.rank(),
                static_cast<std::uint64_t>(round));
        const Status status =
            registered ? all_reduce.mean() : all_reduce.mean(view(std::span(own)));
        status.throw_if_failed();
        EXPECT_TRUE(same_bits<T>(registered ? all_reduce.buffer().as<T>() : std::span(own),
                                 expected[static_cast<std::size_t>(round)]))
            << "rank " << world.rank() << ", round " << round << ", " << count << " elements"
            << (in_place ? " in place" : "");
      }
    });
  }
};

TEST_P(AllReduceTest, GivesEveryWorkerTheMeanBitForBit) {
  for (const std::size_t count :
       {std::size_t{1}, std::size_t{3}, std::size_t{1000}, large<float>(workers())}) {
    const auto expected = expected_means<float>(path(), workers(), count, 3);
    for (const Memory memory : {Memory::registered, Memory::users, Memory::mixed}) {
      for (const bool in_place : {false, true}) expect_means<float>(expected, memory, in_place);
    }
  }
}

TEST_P(AllReduceTest, TakesDoubles) {
  for (const std::size_t count : {std::size_t{5}, large<double>(workers())}) {
    const auto expected = expected_means<double>(path(), workers(), count, 2);
    for (const Memory memory : {Memory::registered, Memory::users}) {
      for (const bool in_place : {false, true}) expect_means<double>(expected, memory, in_place);
    }
  }
}

// Whoever comes back from `mean` writes new data at once: it must not be taken for the old.
TEST_P(AllReduceTest, KeepsOperationsApartWhenAStragglerReadsLate) {
  constexpr int rounds = 50;
  for (const std::size_t count : {std::size_t{6}, std::size_t{9000}}) {
    const auto expected = expected_means<float>(path(), workers(), count, rounds);
    run([&](World& world) {
      AllReduce all_reduce(world, "vector", count, Dtype::float32);
      for (int round = 0; round < rounds; ++round) {
        fill<float>(all_reduce.buffer().as<float>(), world.rank(),
                    static_cast<std::uint64_t>(round));
        const bool slow = round % world.size() == world.rank();
        world.set_compute_time(slow ? Duration(300us) : Duration::zero());
        world.compute([] {});
        all_reduce.mean().throw_if_failed();
        EXPECT_TRUE(same_bits<float>(all_reduce.buffer().as<float>(),
                                     expected[static_cast<std::size_t>(round)]))
            << "rank " << world.rank() << ", round " << round << ", " << count << " elements";
      }
    });
  }
}

TEST_P(AllReduceTest, OfNothingIsABarrier) {
  std::atomic<int> arrived = 0;
  run([&](World& world) {
    AllReduce all_reduce(world, "barrier", 0, Dtype::float32);
    for (int round = 1; round <= 5; ++round) {
      ++arrived;
      all_reduce.mean().throw_if_failed();
      EXPECT_GE(arrived, round * world.size());
    }
  });
}

TEST_P(AllReduceTest, SeveralAtOnceDoNotDisturbEachOther) {
  constexpr int rounds = 5;
  const auto floats = expected_means<float>(path(), workers(), 10, rounds);
  const auto doubles = expected_means<double>(path(), workers(), 5000, rounds);
  run([&](World& world) {
    AllReduce first(world, "first", 10, Dtype::float32);
    AllReduce second(world, "second", 5000, Dtype::float64);
    for (std::size_t round = 0; round < rounds; ++round) {
      fill<float>(first.buffer().as<float>(), world.rank(), round);
      fill<double>(second.buffer().as<double>(), world.rank(), round);
      first.mean().throw_if_failed();
      second.mean().throw_if_failed();
      EXPECT_TRUE(same_bits<float>(first.buffer().as<float>(), floats[round]));
      EXPECT_TRUE(same_bits<double>(second.buffer().as<double>(), doubles[round]));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    , AllReduceTest,
    ::testing::Combine(::testing::Values(Path::mapped, Path::put, Path::delayed, Path::mapped_hosts,
                                         Path::simulated, Path::simulated_links,
                                         Path::simulated_delays),
                       ::testing::Values(1, 2, 3, 5, 8)),
    [](const auto& info) {
      return to_string(std::get<0>(info.param)) + "_" + std::to_string(std::get<1>(info.param)) +
             "_workers";
    });

// ---- Failures, for both algorithms.

class AllReduceFailureTest : public ::testing::TestWithParam<std::tuple<Path, std::size_t>> {
 protected:
  static Path path() { return std::get<0>(GetParam()); }
  static std::size_t count() { return std::get<1>(GetParam()); }
};

TEST_P(AllReduceFailureTest, ALostPeerIsAnErrorAtEverybodyThatStays) {
  LaunchOptions options = options_of(path());
  options.faults = FaultPlan{.cut_peer = 2, .cut_after = 7};
  const std::size_t elements = count();
  std::atomic<World*> cut_off = nullptr;
  std::atomic<int> failed = 0;
  launch(
      3,
      [&](World& world) {
        if (world.rank() == 2) cut_off = &world;
        AllReduce all_reduce(world, "cut", elements, Dtype::float32);
        Status status;
        for (int round = 0; round < 20 && status; ++round) status = all_reduce.mean();
        ASSERT_FALSE(status);
        if (world.rank() != 2) {
          EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
          EXPECT_EQ(status.peer(), 2);
          // Nothing reaches rank 2 any more.
          if (++failed == 2) cut_off.load()->abort({Code::stopped, "enough"});
        }
        const Status again = all_reduce.mean();
        EXPECT_EQ(again.code(), status.code());
        EXPECT_EQ(again.message(), status.message());
      },
      options);
}

TEST_P(AllReduceFailureTest, AnAbortEndsTheWait) {
  const std::size_t elements = count();
  Status seen;
  try {
    launch(
        3,
        [&](World& world) {
          AllReduce all_reduce(world, "abort", elements, Dtype::float32);
          all_reduce.mean().throw_if_failed();
          world.bootstrap().fence(60s);
          if (world.rank() == 1) throw Error(Code::io, "the disk is full");
          const Status status = all_reduce.mean();
          if (world.rank() == 0) seen = status;
        },
        options_of(path()));
    FAIL() << "the error of rank 1 was swallowed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::io);
  }
  EXPECT_EQ(seen.code(), Code::aborted);
  EXPECT_THAT(seen.message(), HasSubstr("the disk is full"));
}

INSTANTIATE_TEST_SUITE_P(, AllReduceFailureTest,
                         ::testing::Combine(::testing::Values(Path::put, Path::simulated),
                                            ::testing::Values(4, 100'000)),
                         [](const auto& info) {
                           return to_string(std::get<0>(info.param)) + "_" +
                                  std::to_string(std::get<1>(info.param)) + "_elements";
                         });

TEST(AllReduce, ATimeoutNamesWhoIsMissing) {
  LaunchOptions options;
  options.world.wait_timeout = 500ms;
  for (const std::size_t count : {4, 100'000}) {
    launch(
        3,
        [count](World& world) {
          PartialAllReduceOptions waiting;
          // Time runs once ranks 0 and 1 have what the other one sends before it waits.
          waiting.wait = [&world, met = false](FunctionRef<bool()> over,
                                               std::string_view what) mutable {
            if (!std::exchange(met, true)) world.bootstrap().fence(60s);
            return world.wait_until(over, world.deadline(), what);
          };
          AllReduce all_reduce(world, "grad", count, Dtype::float32, waiting);
          if (world.rank() == 2) {
            world.bootstrap().fence(60s);
            return;
          }
          const Status status = all_reduce.mean();
          EXPECT_EQ(status.code(), Code::timeout);
          EXPECT_EQ(status.peer(), 2);
          EXPECT_THAT(status.message(), HasSubstr("'grad': nothing has come from rank 2"));
        },
        options);
  }
}

TEST(AllReduce, RefusesAVectorOfAnotherShape) {
  launch(2, [](World& world) {
    AllReduce all_reduce(world, "shape", 4, Dtype::float32);
    std::vector<float> floats(5);
    std::vector<double> doubles(4);
    EXPECT_EQ(all_reduce.mean(view(std::span(floats))).code(), Code::invalid_argument);
    EXPECT_EQ(all_reduce.mean(view(std::span(doubles))).code(), Code::invalid_argument);
    floats.assign(4, world.rank() == 0 ? 1.0f : 2.0f);
    EXPECT_TRUE(all_reduce.mean(view(std::span(floats)).slice(0, 4)));  // it still works
  });
}

TEST(AllReduce, RefusesWorkersOfDifferentCounts) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;  // the same worker always notices first
  constexpr std::size_t counts[] = {10, 100, 10'000, 1'000'000};
  for (const std::size_t first : counts) {
    for (const std::size_t second : counts) {
      if (first == second) continue;
      try {
        launch(
            2,
            [&](World& world) {
              AllReduce all_reduce(world, "counts", world.rank() == 0 ? first : second,
                                   Dtype::float32);
              all_reduce.mean().throw_if_failed();
            },
            options);
        ADD_FAILURE() << first << " and " << second << " elements went together";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::peer_mismatch);
        EXPECT_THAT(error.what(), HasSubstr("'counts'"));
      }
    }
  }
}

TEST(AllReduce, LeadIsOneForWhoeverWaited) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  for (const std::size_t count : {1, 10'000}) {
    launch(
        2,
        [count](World& world) {
          AllReduce all_reduce(world, "lead", count, Dtype::float32);
          EXPECT_EQ(all_reduce.max_lead(), 0u);
          world.set_compute_time(world.rank() == 1 ? 1ms : 0ms);
          world.compute([] {});
          all_reduce.mean().throw_if_failed();
          if (world.rank() == 0) {
            EXPECT_EQ(all_reduce.max_lead(), 1u);
          }
        },
        options);
  }
}

TEST(AllReduce, NeedsAVectorLessInPlace) {
  const std::size_t bytes = std::size_t{4} << 20;
  for (const int workers : {2, 7, 64}) {
    for (const bool in_place : {false, true}) {
      const std::size_t vectors = in_place ? 2 : 3;
      const std::size_t memory =
          AllReduce::memory(workers, bytes / 4, Dtype::float32, {.in_place = in_place});
      EXPECT_GE(memory, vectors * bytes);
      EXPECT_LE(memory, vectors * bytes + 256 * static_cast<std::size_t>(workers)) << workers;
    }
  }
}

}  // namespace
}  // namespace slip
