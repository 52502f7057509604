// Partial all-reduces between real processes: any groups, a member that is killed in mid-operation,
// and what thousands of groups leave behind.

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "averaging.h"
#include "conformance.h"
#include "slipstream/collectives/partial_all_reduce.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

/// Group number `sequence`: every worker with probability 1/2, and rank 0 if nobody else.
Group random_group(std::uint64_t sequence, int workers) {
  Random random(key({23, sequence}));
  Group group{sequence, {}};
  for (int rank = 0; rank < workers; ++rank) {
    if (random.below(2) == 0) group.members.push_back(rank);
  }
  if (group.members.empty()) group.members.push_back(0);
  return group;
}

bool is_member(const Group& group, int rank) {
  return std::binary_search(group.members.begin(), group.members.end(), rank);
}

void expect_all_well(const std::vector<int>& ends) {
  for (std::size_t rank = 0; rank < ends.size(); ++rank) EXPECT_EQ(ends[rank], 0) << rank;
}

TEST(PartialAllReduceProcesses, GiveTheMembersOfAnyGroupTheMean) {
  expect_all_well(testing::run_processes(
      5,
      [](World& world) {
        for (const std::size_t count : {std::size_t{7}, std::size_t{5000}, std::size_t{800'000}}) {
          PartialAllReduce partial(world, std::to_string(count), count, Dtype::float32);
          std::vector<float> own(count);
          for (std::uint64_t k = 1; k <= (count > 10'000 ? 6 : 100); ++k) {
            const Group group = random_group(k, world.size());
            if (!is_member(group, world.rank())) continue;
            const bool registered = (k + static_cast<std::uint64_t>(world.rank())) % 3 != 0;
            const auto vector = [&] {
              return registered ? partial.buffer().as<float>() : std::span(own);
            };
            testing::fill<float>(vector(), world.rank(), k);
            const Status status =
                registered ? partial.mean(group) : partial.mean(group, view(std::span(own)));
            status.throw_if_failed();
            EXPECT_TRUE(testing::same_bits<float>(
                vector(), testing::expected_mean<float>(group.members, count, k)))
                << "rank " << world.rank() << ", group " << k << ", " << count << " elements";
          }
        }
      },
      {}));
}

/// Everybody averages again and again until rank 1 is killed, some time after it began.
void kill_in_mid_operation(std::size_t count, bool registered, Duration after) {
  const auto ends = testing::run_processes(
      3,
      [&](World& world) {
        PartialAllReduce partial(world, "vector", count, Dtype::float32);
        std::vector<float> own(count);
        const auto vector = [&] {
          return registered ? partial.buffer().as<float>() : std::span(own);
        };
        Group group{1, {0, 1, 2}};
        partial.announce(group).throw_if_failed();
        world.bootstrap().fence(60s);
        if (world.rank() == 1) {
          std::thread([after] {
            std::this_thread::sleep_for(after);
            raise(SIGKILL);
          }).detach();
        }
        for (;; ++group.sequence) {
          testing::fill<float>(vector(), world.rank(), group.sequence);
          const std::vector<float> before(vector().begin(), vector().end());
          const Status status =
              registered ? partial.mean(group) : partial.mean(group, view(std::span(own)));
          if (status) continue;
          EXPECT_TRUE(testing::same_bits<float>(vector(), before)) << status.message();
          EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
          EXPECT_EQ(status.peer(), 1);
          return;
        }
      },
      {});
  EXPECT_EQ(ends[0], 0);
  EXPECT_EQ(ends[1], SIGKILL);
  EXPECT_EQ(ends[2], 0);
}

TEST(PartialAllReduceProcesses, AMemberThatIsKilledDamagesNobodysVector) {
  for (const std::size_t count : {100, 500'000}) {
    for (const bool registered : {true, false}) {
      for (int i = 0; i < 5; ++i) kill_in_mid_operation(count, registered, i * 3ms + 1ms);
    }
  }
}

/// What a process holds that could leak.
struct Holdings {
  long descriptors;
  long mappings;
  std::size_t heap;

  static Holdings now() {
    const std::filesystem::directory_iterator descriptors("/proc/self/fd");
    std::ifstream maps("/proc/self/maps");
    return {std::distance(begin(descriptors), end(descriptors)),
            std::count(std::istreambuf_iterator<char>(maps), {}, '\n'), mallinfo2().uordblks};
  }
};

TEST(PartialAllReduceProcesses, TenThousandGroupsLeaveNothingBehind) {
  expect_all_well(
      testing::run_processes(6,
                             [](World& world) {
                               PartialAllReduce small(world, "small", 2, Dtype::float32);
                               PartialAllReduce large(world, "large", 1000, Dtype::float32);
                               const auto take = [&](std::uint64_t first, std::uint64_t last) {
                                 for (std::uint64_t k = first; k <= last; ++k) {
                                   const Group group = random_group(k, world.size());
                                   if (!is_member(group, world.rank())) continue;
                                   small.mean(group).throw_if_failed();
                                   large.mean(group).throw_if_failed();
                                 }
                               };
                               take(1, 500);
                               const Holdings before = Holdings::now();
                               take(501, 10'500);
                               const Holdings after = Holdings::now();
                               EXPECT_EQ(after.descriptors, before.descriptors);
                               // A sanitizer maps a few blocks of its own, but not one a group.
                               EXPECT_LT(after.mappings, before.mappings + 100);
                               EXPECT_EQ(after.heap, before.heap);
                             },
                             {}));
}

}  // namespace
}  // namespace slip
