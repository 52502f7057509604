// The group generator as a service: every group is executed by all its members, in one total order;
// nobody starves or waits for ever; and the speed that the policies were designed for.

#include "slipstream/collectives/group_service.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/runtime/launch.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

struct Scenario {
  GroupGeneratorOptions generator;
  LaunchOptions launch{};
  int averages = 20;        // that each worker asks for, unless
  Time until = never;       // this comes first
  Duration reduce_time{0};  // of a group of two or more
  std::function<Duration(int rank, int k)> compute{};
};

struct Outcome {
  std::vector<std::vector<Group>> executed;  // by worker, in its order
  std::vector<int> averages;                 // as it asked for
  std::vector<double> starts, ends;
};

/// A worker as Prague has it: computes, averages, leaves, and executes what is left.
void work(World& world, const Scenario& s, Outcome& outcome) {
  const auto me = static_cast<std::size_t>(world.rank());
  GroupGeneratorOptions generator = s.generator;
  generator.topology = &world.topology();
  GroupService service(world, "generator", generator);
  PartialAllReduce reduce(world, "reduce", 1, Dtype::float64, {.in_place = true});
  double& x = reduce.buffer().as<double>()[0];
  x = Random(key({s.generator.seed, me})).uniform(-1, 1);
  outcome.starts[me] = x;
  FormedGroup formed;
  const auto execute_next = [&] {
    world.wait_until([&] { return service.ready(); }, world.deadline(), "a group")
        .throw_if_failed();
    service.take(&formed).throw_if_failed();
    const Group& group = formed.group;
    if (group.members.empty()) return;
    outcome.executed[me].push_back(group);
    if (group.members.size() > 1) {
      reduce.mean(group).throw_if_failed();
      world.set_compute_time(s.reduce_time);
      world.compute([] {});
    }
    service.done(group).throw_if_failed();
  };
  const bool asks_always = s.generator.policy == GroupPolicy::random;
  for (int k = 0; k < s.averages && world.now() < s.until; ++k) {
    world.set_compute_time(s.compute(world.rank(), k));
    world.compute([] {});
    if (asks_always || !service.ready()) service.request().throw_if_failed();
    do {
      execute_next();
    } while (asks_always && formed.initiator != world.rank());
    ++outcome.averages[me];
  }
  service.leave().throw_if_failed();
  do {
    execute_next();
  } while (!formed.group.members.empty());
  outcome.ends[me] = x;
  world.goodbye();
}

Outcome run(const Scenario& s) {
  const auto n = static_cast<std::size_t>(s.generator.workers);
  Outcome outcome{std::vector<std::vector<Group>>(n), std::vector<int>(n), std::vector<double>(n),
                  std::vector<double>(n)};
  launch(
      s.generator.workers, [&](World& world) { work(world, s, outcome); }, s.launch);
  return outcome;
}

void expect_one_total_order(const Outcome& outcome) {
  std::map<std::uint64_t, std::vector<int>> members;  // of each group, as those who executed it say
  std::map<std::uint64_t, std::vector<int>> executed_by;
  for (std::size_t rank = 0; rank < outcome.executed.size(); ++rank) {
    std::uint64_t last = 0;
    for (const Group& group : outcome.executed[rank]) {
      EXPECT_GT(group.sequence, last) << "at rank " << rank;
      last = group.sequence;
      const auto [known, is_new] = members.emplace(group.sequence, group.members);
      EXPECT_EQ(known->second, group.members) << "group " << group.sequence;
      executed_by[group.sequence].push_back(static_cast<int>(rank));
    }
  }
  for (const auto& [sequence, ranks] : executed_by) {
    EXPECT_EQ(ranks, members[sequence]) << "group " << sequence;
  }
}

Scenario random_scenario(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  Scenario s;
  const bool on_threads = kind == LaunchKind::threads;
  s.generator.workers = 1 + static_cast<int>(random.below(on_threads ? 6 : 12));
  s.generator.policy = static_cast<GroupPolicy>(random.below(4));
  s.generator.group_size = 2 + static_cast<int>(random.below(4));
  if (random.below(2) == 0) s.generator.filter = 1 + static_cast<int>(random.below(5));
  s.generator.seed = seed;
  s.averages = 5 + static_cast<int>(random.below(20));
  s.launch.kind = kind;
  s.launch.stack_bytes = 128 * 1024;
  if (!on_threads) {
    sim::NetworkOptions& network = s.launch.world.network;
    network.workers_per_host = 1 + static_cast<int>(random.below(5));
    network.link.latency = from_seconds(random.uniform(0, 2e-3));
    network.link.bytes_per_second = random.below(2) == 0 ? 0 : 1e5;
  }
  if (random.below(2) == 0) {
    s.launch.faults = FaultPlan{.seed = seed,
                                .delay_probability = random.uniform(),
                                .max_delay = from_seconds(random.uniform(0, 5e-3))};
  }
  s.compute = [seed](int rank, int k) {
    const auto worker = static_cast<std::uint64_t>(rank);
    const double slow = Random(key({seed, worker})).uniform() < 0.2 ? 6 : 1;
    Random draw(key({seed, worker, static_cast<std::uint64_t>(k)}));
    return from_seconds(draw.uniform(0, 1e-3) * slow);
  };
  return s;
}

void check(const Scenario& s) {
  const Outcome outcome = run(s);
  expect_one_total_order(outcome);
  EXPECT_THAT(outcome.averages, ::testing::Each(s.averages));
  double before = 0;
  double after = 0;
  for (std::size_t rank = 0; rank < outcome.ends.size(); ++rank) {
    before += outcome.starts[rank];
    after += outcome.ends[rank];
  }
  EXPECT_NEAR(before, after, 1e-12);
}

TEST(GroupService, executes_all_groups_in_one_total_order_and_starves_nobody) {
  testing::for_seeds(
      500, [](std::uint64_t seed) { check(random_scenario(seed, LaunchKind::simulated)); });
}

TEST(GroupService, does_so_on_threads) {
  testing::for_seeds(
      20, [](std::uint64_t seed) { check(random_scenario(seed, LaunchKind::threads)); }, 20);
}

/// Seconds per iteration in the setting in which the figures of the policies are known: 16 workers,
/// compute 1 s and uniform jitter of 5 %, 0.2 s for every group of two or more, over 3000 s.
struct Speed {
  double all;   // of all workers
  double fast;  // of those that are not slow
};

Speed speed(GroupPolicy policy, int group_size, double slow = 1, std::optional<int> filter = {}) {
  Scenario s;
  s.generator = {16, policy, group_size, filter, 1};
  s.launch.kind = LaunchKind::simulated;
  s.averages = 1'000'000;
  s.until = 3000s;
  s.reduce_time = 200ms;
  s.compute = [slow](int rank, int k) {
    Random draw(key({static_cast<std::uint64_t>(rank), static_cast<std::uint64_t>(k)}));
    return from_seconds(draw.uniform(0.95, 1.05) * (rank == 3 ? slow : 1));
  };
  const Outcome outcome = run(s);
  double all = 0;
  for (const int averages : outcome.averages) all += averages;
  return {3000 * 16 / all, 3000 * 15 / (all - outcome.averages[3])};
}

/// Within a tenth.
void expect_about(double figure, double expected) {
  EXPECT_GT(figure, 0.9 * expected);
  EXPECT_LT(figure, 1.1 * expected);
}

TEST(GroupServiceSpeed, random_groups_queue_up) {
  expect_about(speed(GroupPolicy::random, 2).all, 2.9);
  expect_about(speed(GroupPolicy::random, 3).all, 5.6);
  expect_about(speed(GroupPolicy::random, 4).all, 7.8);
}

TEST(GroupServiceSpeed, group_buffers_make_one_average_of_each_request) {
  expect_about(speed(GroupPolicy::buffer, 3).all, 3.05);
}

TEST(GroupServiceSpeed, divisions_are_as_fast_as_one_group_of_all) {
  for (const int group_size : {2, 3, 4}) {
    expect_about(speed(GroupPolicy::division, group_size).all, 1.23);
  }
}

TEST(GroupServiceSpeed, small_groups_wait_less_for_a_worker_five_times_slower) {
  expect_about(speed(GroupPolicy::division, 2, 5).fast, 1.35);
  expect_about(speed(GroupPolicy::division, 3, 5).fast, 1.43);
  expect_about(speed(GroupPolicy::division, 4, 5).fast, 1.53);
}

TEST(GroupServiceSpeed, the_filter_frees_the_fast_workers) {
  expect_about(speed(GroupPolicy::division, 3, 5, 4).fast, 1.29);
  expect_about(speed(GroupPolicy::division, 3, 2).fast, 1.40);
  expect_about(speed(GroupPolicy::division, 3, 2, 4).fast, 1.23);
}

TEST(GroupService, ends_everywhere_when_rank_0_cannot_be_reached) {
  for (const GroupPolicy policy : {GroupPolicy::random, GroupPolicy::division}) {
    for (const std::uint64_t after : {0, 3, 20}) {
      Scenario s;
      s.generator.workers = 6;
      s.generator.policy = policy;
      s.launch.kind = LaunchKind::simulated;
      s.launch.faults = FaultPlan{.cut_peer = 0, .cut_after = after};
      s.compute = [](int, int) { return 1ms; };
      try {
        run(s);
        ADD_FAILURE() << "nobody has noticed";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::peer_lost) << error.what();
        EXPECT_EQ(error.peer(), 0);
      }
    }
  }
}

TEST(GroupService, refuses_a_generator_for_another_number_of_workers) {
  launch(1, [](World& world) {
    EXPECT_THROW(GroupService(world, "generator", {.workers = 2}), Error);
  });
}

/// Says what no worker says, over the ring that the service has for it.
TEST(GroupService, a_request_without_sense_ends_the_world_of_rank_0_with_the_reason) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  try {
    launch(
        2,
        [](World& world) {
          const GroupGeneratorOptions generator{.workers = 2};
          GroupService service(world, "generator", generator);
          if (world.rank() == 1) service.done({7, {0, 1}}).throw_if_failed();
          world.wait_until([&] { return false; }, world.deadline(), "the end").throw_if_failed();
        },
        options);
    ADD_FAILURE() << "it was believed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::bad_data) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("rank 1 has executed group 7"));
  }
}

}  // namespace
}  // namespace slip
