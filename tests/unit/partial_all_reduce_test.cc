#include "slipstream/collectives/partial_all_reduce.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
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
using testing::expected_mean;
using testing::fill;
using ::testing::HasSubstr;
using testing::hosts_of;
using testing::large;
using testing::options_of;
using testing::Path;
using testing::same_bits;

/// Group number `sequence`: every worker is in it with probability 1/2, and somebody is.
Group random_group(std::uint64_t sequence, int workers) {
  Random random(key({17, sequence}));
  Group group{sequence, {}};
  while (group.members.empty()) {
    for (int rank = 0; rank < workers; ++rank) {
      if (random.below(2) == 0) group.members.push_back(rank);
    }
  }
  return group;
}

bool is_member(const Group& group, int rank) {
  return std::binary_search(group.members.begin(), group.members.end(), rank);
}

/// Whose vector is averaged.
enum class Memory { registered, users, mixed };

class PartialAllReduceTest : public ::testing::TestWithParam<std::tuple<Path, int>> {
 protected:
  static int workers() { return std::get<1>(GetParam()); }
  static void run(const std::function<void(World&)>& work) {
    launch(workers(), work, options_of(std::get<0>(GetParam())));
  }

  /// Random groups, each of which has what its members bring to it.
  template <class T>
  static void expect_means(std::size_t count, std::uint64_t groups, Memory memory,
                           const PartialAllReduceOptions& options, bool announced) {
    run([&](World& world) {
      PartialAllReduce partial(world, "vector", count, dtype_of<T>(), options);
      std::vector<T> own(count);
      for (std::uint64_t k = 1; k <= groups; ++k) {
        const Group group = random_group(k, world.size());
        if (!is_member(group, world.rank())) continue;
        if (announced) partial.announce(group).throw_if_failed();
        const bool registered =
            memory == Memory::registered ||
            (memory == Memory::mixed && (k + static_cast<std::uint64_t>(world.rank())) % 2 == 0);
        const auto vector = [&] { return registered ? partial.buffer().as<T>() : std::span(own); };
        fill<T>(vector(), world.rank(), k);
        const Status status =
            registered ? partial.mean(group) : partial.mean(group, view(std::span(own)));
        status.throw_if_failed();
        EXPECT_TRUE(same_bits<T>(
            vector(), expected_mean<T>(group.members, count, k, hosts_of(world, partial, group))))
            << "rank " << world.rank() << ", group " << k << " of " << group.members.size();
      }
    });
  }
};

TEST_P(PartialAllReduceTest, GivesTheMembersOfAnyGroupTheMeanBitForBit) {
  for (const bool in_place : {false, true}) {
    for (const Memory memory : {Memory::registered, Memory::users, Memory::mixed}) {
      expect_means<float>(6, 40, memory, {.in_place = in_place}, false);
      expect_means<float>(9000, 20, memory, {.in_place = in_place}, false);
    }
    expect_means<float>(large<float>(workers()), 4, Memory::mixed, {.in_place = in_place}, false);
    expect_means<double>(5000, 10, Memory::mixed, {.in_place = in_place}, false);
  }
}

TEST_P(PartialAllReduceTest, TakesGroupsThatWereAnnounced) {
  expect_means<float>(6, 40, Memory::mixed, {}, true);
  expect_means<float>(9000, 20, Memory::mixed, {}, true);
}

TEST_P(PartialAllReduceTest, KeepsGroupsApartWhenAStragglerReadsLate) {
  constexpr std::uint64_t groups = 60;
  for (const std::size_t count : {std::size_t{6}, std::size_t{9000}}) {
    run([&](World& world) {
      PartialAllReduce partial(world, "vector", count, Dtype::float32);
      for (std::uint64_t k = 1; k <= groups; ++k) {
        const Group group = random_group(k, world.size());
        const bool slow = static_cast<int>(k) % world.size() == world.rank();
        world.set_compute_time(slow ? Duration(200us) : Duration::zero());
        world.compute([] {});
        if (!is_member(group, world.rank())) continue;
        fill<float>(partial.buffer().as<float>(), world.rank(), k);
        partial.mean(group).throw_if_failed();
        EXPECT_TRUE(same_bits<float>(
            partial.buffer().as<float>(),
            expected_mean<float>(group.members, count, k, hosts_of(world, partial, group))))
            << "rank " << world.rank() << ", group " << k << ", " << count << " elements";
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(
    , PartialAllReduceTest,
    ::testing::Combine(::testing::Values(Path::mapped, Path::put, Path::delayed, Path::mapped_hosts,
                                         Path::delayed_hosts, Path::simulated,
                                         Path::simulated_links, Path::simulated_delays),
                       ::testing::Values(2, 3, 6)),
    [](const auto& info) {
      return to_string(std::get<0>(info.param)) + "_" + std::to_string(std::get<1>(info.param)) +
             "_workers";
    });

LaunchOptions simulated_links(sim::Link link = {1e9, 5us}) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.world.network.link = link;
  return options;
}

// ---- Time.

/// Virtual time until all of `groups` are done by 4 workers.
Duration time_of(const std::vector<Group>& groups, std::size_t count,
                 const LaunchOptions& options = simulated_links()) {
  Time end{};
  launch(
      4,
      [&](World& world) {
        PartialAllReduce partial(world, "vector", count, Dtype::float32);
        for (const Group& group : groups) {
          if (is_member(group, world.rank())) partial.mean(group).throw_if_failed();
        }
        end = std::max(end, world.now());
      },
      options);
  return end;
}

TEST(PartialAllReduce, DisjointGroupsTakeNoMoreTimeThanOne) {
  for (const std::size_t count : {4, 100'000}) {
    const Duration one = time_of({{1, {0, 1}}}, count);
    EXPECT_GT(one, Duration::zero());
    EXPECT_EQ(time_of({{1, {0, 1}}, {2, {2, 3}}}, count), one);
    EXPECT_GT(time_of({{1, {0, 1}}, {2, {1, 2}}}, count), one);
  }
}

TEST(PartialAllReduce, AnAnnouncedGroupWaitsForNoReadiness) {
  constexpr std::size_t count = 10'000;
  for (const bool announced : {false, true}) {
    Duration time{};
    launch(
        2,
        [&](World& world) {
          PartialAllReduce partial(world, "vector", count, Dtype::float32);
          const Group group{1, {0, 1}};
          if (announced) partial.announce(group).throw_if_failed();
          world.set_compute_time(1ms);
          world.compute([] {});
          partial.mean(group).throw_if_failed();
          time = world.now() - 1ms;
        },
        simulated_links({0, 5us}));
    EXPECT_EQ(time, announced ? 10us : 15us);
  }
}

TEST(PartialAllReduce, TheGroupRightBehindAnotherOneOfTheSameMembersWaitsForNoneEither) {
  launch(
      2,
      [](World& world) {
        PartialAllReduce partial(world, "vector", 10'000, Dtype::float32);
        partial.announce({1, {0, 1}}).throw_if_failed();
        partial.mean({1, {0, 1}}).throw_if_failed();
        const Time begin = world.now();
        for (std::uint64_t k = 2; k <= 11; ++k) partial.mean({k, {0, 1}}).throw_if_failed();
        EXPECT_EQ(world.now() - begin, 10 * 10us);
      },
      simulated_links({0, 5us}));
}

// ---- Groups and vectors that are none.

TEST(PartialAllReduce, OfOneIsItsVector) {
  launch(2, [](World& world) {
    PartialAllReduce partial(world, "vector", 10'000, Dtype::float32);
    fill<float>(partial.buffer().as<float>(), world.rank(), 1);
    const std::vector<float> before(partial.buffer().as<float>().begin(),
                                    partial.buffer().as<float>().end());
    for (std::uint64_t k = 1; k <= 3; ++k) partial.mean({k, {world.rank()}}).throw_if_failed();
    EXPECT_TRUE(same_bits<float>(partial.buffer().as<float>(), before));
  });
}

TEST(PartialAllReduce, RefusesWhatIsNoGroup) {
  launch(3, [](World& world) {
    PartialAllReduce partial(world, "vector", 4, Dtype::float32);
    const int own = world.rank();
    const int other = (own + 1) % 3;
    for (const std::vector<int>& members :
         std::vector<std::vector<int>>{{},
                                       {other},
                                       {own, own},
                                       {own, 3},
                                       {-1, own},
                                       {std::max(own, other), std::min(own, other)}}) {
      const Status status = partial.mean({1, members});
      EXPECT_EQ(status.code(), Code::invalid_argument);
      EXPECT_THAT(status.message(), HasSubstr("group 1 has the members"));
      EXPECT_EQ(partial.announce({1, members}).code(), Code::invalid_argument);
    }
    EXPECT_EQ(partial.mean({0, {own}}).code(), Code::invalid_argument);
    EXPECT_TRUE(partial.mean({1, {0, 1, 2}}));  // it still works
    EXPECT_THAT(partial.mean({1, {own}}).message(), HasSubstr("group 1 after 1"));
  });
}

TEST(PartialAllReduce, RefusesAnotherGroupThanTheAnnouncedOne) {
  launch(2, [](World& world) {
    PartialAllReduce partial(world, "vector", 4, Dtype::float32);
    EXPECT_TRUE(partial.announce({5, {0, 1}}));
    EXPECT_TRUE(partial.announce({5, {0, 1}}));
    EXPECT_THAT(partial.mean({4, {0, 1}}).message(), HasSubstr("group 4 where 5 was announced"));
    EXPECT_EQ(partial.announce({6, {0, 1}}).code(), Code::invalid_argument);
    EXPECT_TRUE(partial.mean({5, {0, 1}}));
    EXPECT_TRUE(partial.mean({6, {0, 1}}));
  });
}

TEST(PartialAllReduce, RefusesAVectorOfAnotherShapeAndItsOwnBufferByAddress) {
  launch(2, [](World& world) {
    PartialAllReduce partial(world, "vector", 4000, Dtype::float32);
    std::vector<float> floats(4001);
    std::vector<double> doubles(4000);
    const Group first{1, {0, 1}};
    EXPECT_EQ(partial.mean(first, view(std::span(floats))).code(), Code::invalid_argument);
    EXPECT_EQ(partial.mean(first, view(std::span(doubles))).code(), Code::invalid_argument);
    EXPECT_THAT(partial.mean(first, partial.buffer()).message(), HasSubstr("unless in_place"));
    EXPECT_TRUE(partial.mean(first, view(std::span(floats)).slice(0, 4000)));
  });
}

TEST(PartialAllReduce, TheBufferStaysWhereItIsInPlaceOnly) {
  launch(2, [](World& world) {
    for (const bool in_place : {false, true}) {
      PartialAllReduce partial(world, in_place ? "a" : "b", 4000, Dtype::float32,
                               {.in_place = in_place});
      const void* before = partial.buffer().data;
      partial.mean({1, {0, 1}}).throw_if_failed();
      EXPECT_EQ(partial.buffer().data == before, in_place);
      partial.mean({2, {0, 1}}).throw_if_failed();
      EXPECT_EQ(partial.buffer().data, before);
    }
  });
}

TEST(PartialAllReduce, MembersWhoTakeGroupsInDifferentOrdersAreTold) {
  for (const std::size_t count : {4, 10'000}) {
    launch(
        2,
        [count](World& world) {
          PartialAllReduce partial(world, "vector", count, Dtype::float32);
          // Rank 1 skips the first, as if it took it later.
          const Status status = partial.mean({world.rank() == 0 ? 1u : 2u, {0, 1}});
          EXPECT_EQ(status.code(), Code::group_broken);
          if (world.rank() == 0) {
            EXPECT_THAT(status.message(), HasSubstr("in order of sequence?"));
          }
        },
        simulated_links());
  }
}

// ---- Failures in mid-operation.

#if defined(__SANITIZE_THREAD__)
// Peers may still read it; what they make of it is thrown away.
constexpr bool may_overwrite = false;
#else
constexpr bool may_overwrite = true;
#endif

/// How one member fails: it is aborted at some time, and what its caller then does to its vector.
struct Failure {
  LaunchOptions options;
  std::size_t count;
  Memory memory;
  std::function<void(World& watcher)> wait;  // until it is time
};

/// Three workers average; rank 1 is aborted by a fourth one, which is in no group, and its caller
/// overwrites its vector as soon as it may. Whoever fails has its vector as it was; whoever does
/// not has the mean. Returns how many of the others failed.
int fail_in_mid_operation(const Failure& failure) {
  const Group group{1, {0, 1, 2}};
  std::atomic<World*> victim = nullptr;
  std::atomic<int> failed = 0;
  // Whoever leaves first leaves its memory behind: what is tested is the operation.
  std::unique_ptr<PartialAllReduce> partials[3];
  launch(
      4,
      [&](World& world) {
        if (world.rank() == 3) {
          world.bootstrap().fence(60s);
          failure.wait(world);
          victim.load()->abort({Code::stopped, "enough"});
          return;
        }
        auto& mine = partials[world.rank()];
        mine = std::make_unique<PartialAllReduce>(world, "vector", failure.count, Dtype::float32);
        PartialAllReduce& partial = *mine;
        std::vector<float> own(failure.count);
        const bool registered = failure.memory == Memory::registered;
        const auto vector = [&] {
          return registered ? partial.buffer().as<float>() : std::span(own);
        };
        fill<float>(vector(), world.rank(), 1);
        const std::vector<float> before(vector().begin(), vector().end());
        const std::vector<float> mean =
            expected_mean<float>(group.members, failure.count, 1, hosts_of(world, partial, group));
        if (world.rank() == 1) victim = &world;
        partial.announce(group).throw_if_failed();  // they have met
        world.bootstrap().fence(60s);
        const Status status =
            registered ? partial.mean(group) : partial.mean(group, view(std::span(own)));
        EXPECT_TRUE(same_bits<float>(vector(), status ? mean : before))
            << "rank " << world.rank() << ": " << status.message();
        if (!status && world.rank() == 1) {
          EXPECT_EQ(status.code(), Code::stopped);
          if (may_overwrite) std::fill(vector().begin(), vector().end(), 1e6f);
        }
        if (!status && world.rank() != 1) {
          EXPECT_EQ(status.code(), Code::group_broken) << status.message();
          EXPECT_EQ(status.peer(), 1) << status.message();
          ++failed;
        }
        if (!status) {
          EXPECT_EQ(partial.mean({2, {0, 1, 2}}).message(), status.message());
        }
        if (world.rank() == 1) {  // it stays until it is aborted
          world.set_compute_time(60s);
          world.compute([] {});
        }
      },
      failure.options);
  return failed;
}

/// Ranks 0 and 1 on one host, which 0 leads, and 2 on another; or each on its own.
class PartialAllReduceHosts : public ::testing::TestWithParam<int> {
 protected:
  static LaunchOptions on_hosts(LaunchOptions options) {
    options.world.network.workers_per_host = GetParam();
    return options;
  }
};

TEST_P(PartialAllReduceHosts, AMemberThatFailsAtAnyVirtualTimeDamagesNobodysVector) {
  for (const std::size_t count : {8, 10'000, 500'000}) {
    const Duration whole = time_of({{1, {0, 1, 2}}}, count, on_hosts(simulated_links()));
    for (const Memory memory : {Memory::registered, Memory::users}) {
      int failed = 0;
      constexpr int moments = 40;
      for (int i = 0; i < moments; ++i) {
        const LaunchOptions options = on_hosts(simulated_links());
        failed += fail_in_mid_operation({options, count, memory, [&](World& watcher) {
                                           watcher.set_compute_time(whole * i / moments);
                                           watcher.compute([] {});
                                         }});
      }
      // In one shot nobody needs the victim once it has sent its own.
      if (count > 8) {
        EXPECT_GT(failed, moments / 2) << count;
      }
    }
  }
}

TEST_P(PartialAllReduceHosts, AMemberThatFailsAmongThreadsDamagesNobodysVector) {
  for (const bool mapped : {true, false}) {
    for (const Memory memory : {Memory::registered, Memory::users}) {
      for (int i = 0; i < 25; ++i) {
        LaunchOptions options = on_hosts({});
        if (!mapped) options.faults = FaultPlan{};
        fail_in_mid_operation({options, 300'000, memory, [i](World& watcher) {
                                 const Time begin = watcher.now();
                                 const Time until = begin + i * 40us;
                                 (void)watcher.wait_until([] { return false; }, until, "");
                               }});
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, PartialAllReduceHosts, ::testing::Values(1, 2),
                         [](const auto& info) { return std::to_string(info.param) + "_per_host"; });

TEST(PartialAllReduce, ALostMemberIsNamedToWhomItsLossDoesNotReach) {
  LaunchOptions options = simulated_links();
  options.faults = FaultPlan{.cut_peer = 2, .cut_after = 3};
  launch(
      3,
      [](World& world) {
        PartialAllReduce partial(world, "vector", 10'000, Dtype::float32);
        if (world.rank() == 2) return;
        const Status status = partial.mean({1, {0, 1, 2}});
        EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
        EXPECT_EQ(status.peer(), 2);
      },
      options);
}

}  // namespace
}  // namespace slip
