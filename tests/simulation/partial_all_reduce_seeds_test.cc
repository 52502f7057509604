// Partial all-reduces of random groups in one total order, under random delays, links and stops.
// SLIP_TEST_SEEDS sets how many, SLIP_TEST_SEED the first.

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "averaging.h"
#include "conformance.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/runtime/launch.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

template <class T>
using Vectors = std::vector<std::vector<T>>;  // by rank

struct Scenario {
  int workers;
  std::size_t count;
  PartialAllReduceOptions options;
  std::vector<Group> groups;
  LaunchOptions launch;
  double announced;   // how often a group is announced
  double registered;  // how often a vector is averaged in registered memory
  Duration compute;   // before every group, at most
};

Group random_group(std::uint64_t sequence, int workers, Random& random) {
  Group group{sequence, {}};
  const double density = random.uniform(0.2, 1);
  while (group.members.empty()) {
    for (int rank = 0; rank < workers; ++rank) {
      if (random.uniform() < density) group.members.push_back(rank);
    }
  }
  return group;
}

sim::Link random_link(Random& random) {
  if (random.below(3) == 0) return {};
  return {random.below(2) == 0 ? 0 : random.uniform(1e8, 1e10),
          from_seconds(random.uniform(0, 1e-4))};
}

Scenario random_scenario(std::uint64_t seed) {
  Random random(seed);
  Scenario s;
  s.workers = 2 + static_cast<int>(random.below(7));
  switch (random.below(8)) {
    case 0:
      s.count = random.below(3);
      break;
    case 1:
      s.count = 20'000 + random.below(400'000);  // shards of several chunks
      break;
    default:
      s.count = 1 + random.below(random.below(2) == 0 ? 100 : 3000);
  }
  s.options.in_place = random.below(2) == 0;
  s.options.algorithm = random.below(2) == 0 ? Algorithm::automatic : Algorithm::hierarchical;
  std::uint64_t sequence = 0;
  const std::uint64_t groups = s.count > 10'000 ? 4 : 5 + random.below(20);
  for (std::uint64_t i = 0; i < groups; ++i) {
    sequence += 1 + (random.below(4) == 0 ? random.below(1000) : 0);
    s.groups.push_back(random_group(sequence, s.workers, random));
  }
  s.launch.kind = LaunchKind::simulated;
  s.launch.world.network.link = random_link(random);
  s.launch.world.network.inner_link = random_link(random);
  s.launch.world.network.workers_per_host = 1 + static_cast<int>(random.below(4));
  if (random.below(2) == 0) {
    s.launch.faults = FaultPlan{.seed = seed,
                                .delay_probability = random.uniform(),
                                .max_delay = from_seconds(random.uniform(0, 1e-3))};
  }
  s.announced = random.below(3) == 0 ? 0 : random.uniform();
  s.registered = random.uniform();
  s.compute = from_seconds(random.uniform(0, 1e-3));
  return s;
}

bool is_member(const Group& group, int rank) {
  return std::binary_search(group.members.begin(), group.members.end(), rank);
}

template <class T>
Vectors<T> starts(const Scenario& s) {
  Vectors<T> vectors(static_cast<std::size_t>(s.workers), std::vector<T>(s.count));
  for (int rank = 0; rank < s.workers; ++rank) {
    testing::fill<T>(vectors[static_cast<std::size_t>(rank)], rank, 0);
  }
  return vectors;
}

/// One group after the other, in plain loops: `step(group)` is called behind each.
template <class T, class Step>
void average(const Scenario& s, Vectors<T>& vectors, Step step) {
  const auto hosts =
      testing::hosts_of(s.workers, s.launch, s.count, dtype_of<T>(), s.options, s.groups);
  for (std::size_t i = 0; i < s.groups.size(); ++i) {
    const std::vector<int>& members = s.groups[i].members;
    Vectors<T> inputs;
    for (const int rank : members) inputs.push_back(vectors[static_cast<std::size_t>(rank)]);
    const std::vector<T> mean = testing::mean_of(inputs, hosts[i]);
    for (const int rank : members) vectors[static_cast<std::size_t>(rank)] = mean;
    step(s.groups[i]);
  }
}

/// A worker that takes its groups in order, each with the vector that the one before left, in
/// registered memory or in its own.
template <class T>
class Member {
 public:
  Member(const World& world, const Scenario& s, std::uint64_t seed, std::vector<T> start)
      : world_(world),
        s_(s),
        partial_(world, "vector", s.count, dtype_of<T>(), s.options),
        random_(key({seed, static_cast<std::uint64_t>(world.rank())})),
        vector_(std::move(start)) {}

  const std::vector<T>& vector() const { return vector_; }

  Status take(const Group& group) {
    if (random_.uniform() < s_.announced) {
      if (Status status = partial_.announce(group); !status) return status;
    }
    world_.set_compute_time(from_seconds(to_seconds(s_.compute) * random_.uniform()));
    world_.compute([] {});
    if (random_.uniform() >= s_.registered) return partial_.mean(group, view(std::span(vector_)));
    std::copy(vector_.begin(), vector_.end(), partial_.buffer().as<T>().begin());
    const Status status = partial_.mean(group);
    const auto buffer = partial_.buffer().as<T>();
    std::copy(buffer.begin(), buffer.end(), vector_.begin());
    return status;
  }

 private:
  const World& world_;
  const Scenario& s_;
  PartialAllReduce partial_;
  Random random_;
  std::vector<T> vector_;
};

template <class T>
double sum(const Vectors<T>& vectors) {
  double total = 0;
  for (const auto& vector : vectors) {
    for (const T x : vector) total += static_cast<double>(x);
  }
  return total;
}

template <class T>
void check_means(const Scenario& s, std::uint64_t seed) {
  const Vectors<T> before = starts<T>(s);
  Vectors<T> expected = before;
  average(s, expected, [](const Group&) {});
  Vectors<T> after(before.size());
  launch(
      s.workers,
      [&](World& world) {
        const auto rank = static_cast<std::size_t>(world.rank());
        Member<T> member(world, s, seed, before[rank]);
        for (const Group& group : s.groups) {
          if (is_member(group, world.rank())) member.take(group).throw_if_failed();
        }
        after[rank] = member.vector();
      },
      s.launch);
  EXPECT_EQ(after, expected);
  const double elements = static_cast<double>(s.count) * s.workers;
  const double rounding = static_cast<double>(std::numeric_limits<T>::epsilon()) *
                          static_cast<double>(s.groups.size() * (before.size() + 1));
  EXPECT_NEAR(sum(after), sum(before), elements * rounding);
}

TEST(PartialAllReduceSeeds, EveryGroupHasItsMeanAndTheSumOfAllIsConserved) {
  testing::for_seeds(200, [](std::uint64_t seed) {
    const Scenario s = random_scenario(seed);
    if (seed % 4 == 0) {
      check_means<double>(s, seed);
    } else {
      check_means<float>(s, seed);
    }
  });
}

/// Every worker's vectors after 0, 1, ... of its groups.
std::vector<Vectors<float>> histories(const Scenario& s) {
  Vectors<float> now = starts<float>(s);
  std::vector<Vectors<float>> history(now.size());
  for (std::size_t rank = 0; rank < now.size(); ++rank) history[rank].push_back(now[rank]);
  average(s, now, [&](const Group& group) {
    for (const int rank : group.members) {
      history[static_cast<std::size_t>(rank)].push_back(now[static_cast<std::size_t>(rank)]);
    }
  });
  return history;
}

enum class End { stopped, killed };

/// One worker ends at some time. Returns how many fail.
int end_one(Scenario s, End end, std::uint64_t seed) {
  Random random(key({seed, 99}));
  const int victim = static_cast<int>(random.below(static_cast<std::uint64_t>(s.workers)));
  const Duration when = from_seconds(random.uniform(0, 2e-3));
  s.options.in_place = false;
  const std::vector<Vectors<float>> history = histories(s);
  if (end == End::killed) s.launch.crashes = {{victim, when}};
  World* to_stop = nullptr;
  int failed = 0;
  launch(
      s.workers + 1,
      [&](World& world) {
        if (world.rank() == s.workers) {  // who stops it
          world.set_compute_time(when);
          world.compute([] {});
          const bool stops = end == End::stopped && to_stop != nullptr;
          if (stops) to_stop->abort({Code::stopped, "enough"});
          return;
        }
        if (world.rank() == victim) to_stop = &world;
        const auto rank = static_cast<std::size_t>(world.rank());
        Member<float> member(world, s, seed, history[rank][0]);
        std::size_t done = 0;
        Status status;
        for (std::size_t i = 0; i < s.groups.size() && status; ++i) {
          if (!is_member(s.groups[i], world.rank())) continue;
          status = member.take(s.groups[i]);
          done += status.ok();
        }
        if (world.rank() == victim) to_stop = nullptr;
        failed += !status;
        EXPECT_EQ(member.vector(), history[rank][done])
            << "rank " << world.rank() << " after " << done << " groups: " << status.message();
        // Whoever stays would be told of whoever left; here nobody leaves before the end.
        world.set_compute_time(1s);
        world.compute([] {});
      },
      s.launch);
  return failed;
}

class PartialAllReduceEnds : public ::testing::TestWithParam<End> {};

TEST_P(PartialAllReduceEnds, WhoFailsHasTheVectorOfItsLastGroup) {
  int failed = 0;
  int runs = 0;
  testing::for_seeds(200, [&](std::uint64_t seed) {
    ++runs;
    failed += end_one(random_scenario(seed), GetParam(), seed);
  });
  EXPECT_GT(failed, runs / 4);
}

/// Hosts of several workers, and vectors of several rows.
Scenario between_hosts(std::uint64_t seed) {
  Scenario s = random_scenario(seed);
  Random random(key({seed, 3}));
  s.workers = 4 + static_cast<int>(random.below(9));
  s.count = 1000 + random.below(60'000);
  s.options.algorithm = Algorithm::hierarchical;
  // With several NICs, so that hosts have several leaders.
  if (seed % 2 == 0) s.launch.world.machines = {SLIP_TOPOLOGIES "/two_socket.xml"};
  s.launch.world.network.workers_per_host = 2 + static_cast<int>(random.below(3));
  for (Group& group : s.groups) group = random_group(group.sequence, s.workers, random);
  return s;
}

TEST_P(PartialAllReduceEnds, BetweenHostsToo) {
  int failed = 0;
  int runs = 0;
  testing::for_seeds(200, [&](std::uint64_t seed) {
    ++runs;
    failed += end_one(between_hosts(seed), GetParam(), seed);
  });
  EXPECT_GT(failed, runs / 4);
}

INSTANTIATE_TEST_SUITE_P(, PartialAllReduceEnds, ::testing::Values(End::stopped, End::killed),
                         [](const auto& info) {
                           return info.param == End::stopped ? "stopped" : "killed";
                         });

TEST(PartialAllReduceSeeds, BetweenHostsEveryGroupHasItsMean) {
  int hierarchical = 0;
  testing::for_seeds(200, [&](std::uint64_t seed) {
    const Scenario s = between_hosts(seed);
    check_means<float>(s, seed);
    for (const auto& hosts :
         testing::hosts_of(s.workers, s.launch, s.count, Dtype::float32, s.options, s.groups)) {
      hierarchical += !hosts.empty();
    }
  });
  EXPECT_GT(hierarchical, 0);
}

/// Virtual time until all of `groups` are done.
Duration time_of(const Scenario& s, std::span<const Group> groups) {
  Time end{};
  launch(
      s.workers,
      [&](World& world) {
        PartialAllReduce partial(world, "vector", s.count, Dtype::float32, s.options);
        for (const Group& group : groups) {
          if (is_member(group, world.rank())) partial.mean(group).throw_if_failed();
        }
        end = std::max(end, world.now());
      },
      s.launch);
  return end;
}

TEST(PartialAllReduceSeeds, GroupsOfAPartitionRunAtTheSameTime) {
  testing::for_seeds(100, [](std::uint64_t seed) {
    Scenario s = random_scenario(seed);
    s.launch.faults.reset();                      // whose draws depend on the order of puts
    s.launch.world.network.workers_per_host = 1;  // NICs are not shared
    s.launch.world.network.link.latency = 10us;
    Random random(key({seed, 7}));
    std::vector<Group> partition(1 + random.below(static_cast<std::uint64_t>(s.workers)));
    for (int rank = 0; rank < s.workers; ++rank) {
      partition[random.below(partition.size())].members.push_back(rank);
    }
    std::erase_if(partition, [](const Group& group) { return group.members.empty(); });
    Duration longest{};
    for (std::size_t i = 0; i < partition.size(); ++i) {
      partition[i].sequence = i + 1;
      longest = std::max(longest, time_of(s, {&partition[i], 1}));
    }
    EXPECT_EQ(time_of(s, partition), longest);
  });
}

TEST(PartialAllReduceSeeds, TenThousandDifferentGroupsLeaveNothingBehind) {
  constexpr int workers = 14;
  constexpr unsigned groups = 10'000;
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.world.network.link.latency = 1us;
  std::size_t before = 0;
  std::size_t after = 0;
  launch(
      workers,
      [&](World& world) {
        PartialAllReduce partial(world, "vector", 300, Dtype::float32);
        const auto take = [&](std::uint64_t sequence, unsigned mask) {
          Group group{sequence, {}};
          for (int rank = 0; rank < workers; ++rank) {
            if ((mask >> rank & 1) != 0) group.members.push_back(rank);
          }
          if (is_member(group, world.rank())) partial.mean(group).throw_if_failed();
        };
        take(1, (1u << workers) - 1);
        for (unsigned k = 1; k <= 2 * groups; ++k) {
          if (world.rank() == 0 && k == groups) before = mallinfo2().uordblks;
          take(k + 1, mix(k) % ((1u << workers) - 1) + 1);
        }
        world.bootstrap().fence(never);
        if (world.rank() == 0) after = mallinfo2().uordblks;
      },
      options);
  EXPECT_LE(after, before + groups);  // bytes: not one for each group
}

}  // namespace
}  // namespace slip
