#include "slipstream/collectives/group_generator.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/collectives/group_division.h"
#include "slipstream/runtime/machine.h"

namespace slip {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<int> ranks(int workers) {
  std::vector<int> all(static_cast<std::size_t>(workers));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// Every worker in one group, members ascending.
void expect_division_of(const std::vector<int>& workers, const Division& division) {
  std::vector<int> seen;
  for (const std::vector<int>& group : division) {
    EXPECT_TRUE(std::is_sorted(group.begin(), group.end()));
    seen.insert(seen.end(), group.begin(), group.end());
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, workers);
}

TEST(GroupDivision, divides_all_and_leaves_nobody_alone) {
  Random random(1);
  for (int workers = 1; workers <= 40; ++workers) {
    for (int size = 2; size <= 7; ++size) {
      const Division division = divide(ranks(workers), size, random);
      expect_division_of(ranks(workers), division);
      for (const std::vector<int>& group : division) {
        EXPECT_LE(group.size(), static_cast<std::size_t>(size) + 1);
        if (workers > 1) {
          EXPECT_GE(group.size(), 2u);
        }
      }
    }
  }
}

TEST(GroupDivision, every_pair_meets_equally_often) {
  Random random(7);
  constexpr int workers = 8;
  constexpr int draws = 70'000;
  std::map<std::pair<int, int>, int> met;
  for (int i = 0; i < draws; ++i) {
    for (const std::vector<int>& group : divide(ranks(workers), 2, random)) {
      ++met[{group[0], group[1]}];
    }
  }
  EXPECT_THAT(met, SizeIs(workers * (workers - 1) / 2));
  for (const auto& [pair, count] : met) EXPECT_NEAR(count, draws / (workers - 1), 500);
}

TEST(GroupDivision, the_static_schedule_for_four_per_host_is_the_authors) {
  const Topology hosts = topology_in_blocks(16, 4);
  const auto group = [&](int rank, std::uint64_t step) { return static_group(rank, step, hosts); };
  for (const std::uint64_t cycle : {0, 4, 400}) {
    EXPECT_THAT(group(4, cycle), ElementsAre(0, 4, 8, 12));
    EXPECT_THAT(group(5, cycle), ElementsAre(5));
    EXPECT_THAT(group(6, cycle), ElementsAre(6, 7));
    EXPECT_THAT(group(7, cycle), ElementsAre(6, 7));
    EXPECT_THAT(group(4, cycle + 2), ElementsAre(4, 7));
    EXPECT_THAT(group(5, cycle + 2), ElementsAre(1, 5, 9, 13));
    EXPECT_THAT(group(6, cycle + 2), ElementsAre(6));
    EXPECT_THAT(group(7, cycle + 2), ElementsAre(4, 7));
    for (const int rank : {4, 5, 6, 7}) {
      EXPECT_THAT(group(rank, cycle + 1), ElementsAre(4, 5, 6, 7));
      EXPECT_THAT(group(rank, cycle + 3), ElementsAre(4, 5, 6, 7));
    }
  }
}

TEST(GroupDivision, static_groups_agree_for_any_number_of_workers_and_hosts) {
  for (int workers = 1; workers <= 20; ++workers) {
    for (int per_host = 1; per_host <= 7; ++per_host) {
      const Topology hosts = topology_in_blocks(workers, per_host);
      for (std::uint64_t step = 0; step < 4; ++step) {
        int alone = 0;
        for (int rank = 0; rank < workers; ++rank) {
          const std::vector<int> group = static_group(rank, step, hosts);
          EXPECT_TRUE(std::binary_search(group.begin(), group.end(), rank));
          for (const int member : group) EXPECT_EQ(static_group(member, step, hosts), group);
          std::set<int> of_hosts;
          for (const int member : group) of_hosts.insert(hosts.host_of(member));
          // Between hosts there is one worker of each.
          if (of_hosts.size() > 1) {
            EXPECT_THAT(of_hosts, SizeIs(group.size()));
          }
          alone += group.size() == 1;
        }
        EXPECT_LE(alone, (workers + per_host - 1) / per_host + 1);
      }
    }
  }
}

TEST(GroupDivision, one_worker_of_a_host_crosses_in_the_inter_step) {
  testing::for_seeds(200, [](std::uint64_t seed) {
    Random random(seed);
    const int workers = 1 + static_cast<int>(random.below(30));
    const Topology hosts = topology_in_blocks(workers, 1 + static_cast<int>(random.below(6)));
    std::vector<int> free;
    for (const int rank : ranks(workers)) {
      if (random.below(4) > 0) free.push_back(rank);
    }
    const Division inter = inter_step(free, hosts, seed, 3, random);
    expect_division_of(free, inter);
    std::map<int, int> crossing;  // workers of a host in groups that leave it
    for (const std::vector<int>& group : inter) {
      if (hosts.host_of(group.front()) == hosts.host_of(group.back())) continue;
      for (const int member : group) ++crossing[hosts.host_of(member)];
    }
    for (const auto& [host, count] : crossing) EXPECT_EQ(count, 1) << "host " << host;
    const Division intra = intra_step(free, hosts);
    expect_division_of(free, intra);
    std::set<int> seen;
    for (const std::vector<int>& group : intra) {
      EXPECT_EQ(hosts.host_of(group.front()), hosts.host_of(group.back()));
      EXPECT_TRUE(seen.insert(hosts.host_of(group.front())).second);
    }
  });
}

TEST(GroupDivision, of_two_hosts_with_four_nics_a_leader_of_each_nic_crosses_in_turn) {
  const auto machine =
      std::make_shared<const Machine>(read_machine(SLIP_TOPOLOGIES "/two_socket.xml"));
  const Topology hosts = topology_in_blocks(16, 8, {machine});
  Random random(1);
  for (int round = 0; round < 8; ++round) {
    Division crossing = inter_step(ranks(16), hosts, static_cast<std::uint64_t>(round), 3, random);
    std::erase_if(crossing, [&](const std::vector<int>& group) {
      return hosts.host_of(group.front()) == hosts.host_of(group.back());
    });
    const int leader = round % 4 * 2;  // mlx5_0:0 mlx5_1:2 mlx5_2:4 mlx5_3:6
    EXPECT_THAT(crossing, ElementsAre(ElementsAre(leader, 8 + leader))) << "round " << round;
  }
  EXPECT_THAT(intra_step(ranks(16), hosts), ElementsAre(ElementsAre(0, 1, 2, 3, 4, 5, 6, 7),
                                                        ElementsAre(8, 9, 10, 11, 12, 13, 14, 15)));
}

/// Workers that ask, execute and leave in an order drawn at random, and what must hold meanwhile.
class Workers {
 public:
  Workers(const GroupGeneratorOptions& options, std::uint64_t seed)
      : options_(options), generator_(options), random_(seed), workers_(options.workers) {}

  /// Everybody averages that many times and leaves. `pace[w]`: how often w comes to its turn.
  void run(int averages, const std::vector<int>& pace) {
    std::vector<int> turns;
    for (std::size_t w = 0; w < pace.size(); ++w) {
      turns.insert(turns.end(), static_cast<std::size_t>(pace[w]), static_cast<int>(w));
    }
    int idle = 0;
    while (!std::all_of(workers_.begin(), workers_.end(), [](const Worker& w) { return w.gone; })) {
      const bool moved = turn(turns[random_.below(turns.size())], averages);
      idle = moved ? 0 : idle + 1;
      ASSERT_LT(idle, 100'000) << "nobody gets on";
      if (::testing::Test::HasFailure()) return;
    }
    EXPECT_THAT(told_, IsEmpty());
  }

  int averages(int worker) const { return workers_[static_cast<std::size_t>(worker)].averages; }
  int alone(int worker) const { return workers_[static_cast<std::size_t>(worker)].alone; }

 private:
  struct Worker {
    std::deque<FormedGroup> buffer;
    bool waiting = false;
    bool leaving = false;
    bool gone = false;
    int averages = 0;  // as it asked for
    int alone = 0;
    std::uint64_t last = 0;
  };

  Worker& of(int worker) { return workers_[static_cast<std::size_t>(worker)]; }

  bool turn(int rank, int averages) {
    Worker& worker = of(rank);
    if (worker.gone) return false;
    if (!worker.waiting && !worker.leaving) {
      if (worker.averages == averages) {
        worker.leaving = true;
        EXPECT_TRUE(generator_.leave(rank).ok());
        return true;
      }
      worker.waiting = true;
      const bool asks_always = options_.policy == GroupPolicy::random;
      if (worker.buffer.empty() || asks_always) {
        told_.clear();
        EXPECT_TRUE(generator_.request(rank, &told_).ok());
        deliver();
        // With buffers the answer is there at once.
        EXPECT_TRUE(asks_always || !worker.buffer.empty());
      }
      return true;
    }
    if (worker.leaving && worker.buffer.empty() && generator_.gone(rank)) {
      worker.gone = true;
      return true;
    }
    return !worker.buffer.empty() && execute(worker.buffer.front().group);
  }

  void deliver() {
    for (const FormedGroup& formed : told_) {
      const std::vector<int>& members = formed.group.members;
      EXPECT_TRUE(std::is_sorted(members.begin(), members.end()));
      EXPECT_LE(members.size(), GroupGenerator::largest_group(options_));
      for (const int member : members) {
        Worker& worker = of(member);
        EXPECT_FALSE(worker.gone);
        EXPECT_GT(formed.group.sequence, worker.last) << "out of the total order";
        worker.last = formed.group.sequence;
        worker.buffer.push_back(formed);
        EXPECT_LE(worker.buffer.size(), GroupGenerator::most_told(options_));
      }
    }
    told_.clear();
  }

  /// If all of its members have come to it.
  bool execute(const Group& next) {
    const Group group = next;
    for (const int member : group.members) {
      const Worker& worker = of(member);
      const bool here = worker.waiting || worker.leaving;
      if (!here || worker.buffer.empty() ||
          worker.buffer.front().group.sequence != group.sequence) {
        return false;
      }
    }
    for (const int member : group.members) {
      Worker& worker = of(member);
      const bool own = worker.buffer.front().initiator == member;
      worker.alone += group.members.size() == 1;
      worker.buffer.pop_front();
      if (worker.waiting && (options_.policy != GroupPolicy::random || own)) {
        worker.waiting = false;
        ++worker.averages;
      }
    }
    // They say so in any order.
    std::vector<int> order = group.members;
    shuffle(order, random_);
    for (const int member : order) {
      EXPECT_TRUE(generator_.done(member, group.sequence, &told_).ok());
    }
    deliver();
    return true;
  }

  GroupGeneratorOptions options_;
  GroupGenerator generator_;
  Random random_;
  std::vector<Worker> workers_;
  std::vector<FormedGroup> told_;
};

constexpr GroupPolicy policies[] = {GroupPolicy::random, GroupPolicy::buffer, GroupPolicy::division,
                                    GroupPolicy::inter_intra};

TEST(GroupGenerator, everybody_averages_as_often_as_it_asks_and_gets_away) {
  testing::for_seeds(1000, [](std::uint64_t seed) {
    Random random(seed);
    GroupGeneratorOptions options;
    options.workers = 1 + static_cast<int>(random.below(12));
    const Topology hosts =
        topology_in_blocks(options.workers, 1 + static_cast<int>(random.below(5)));
    options.topology = &hosts;
    options.policy = policies[random.below(4)];
    options.group_size = 2 + static_cast<int>(random.below(4));
    if (random.below(2) == 0) options.filter = 1 + static_cast<int>(random.below(5));
    options.seed = seed;
    std::vector<int> pace(static_cast<std::size_t>(options.workers));
    for (int& turns : pace) turns = random.below(4) == 0 ? 1 : 6;
    Workers workers(options, seed);
    workers.run(20, pace);
    for (int worker = 0; worker < options.workers; ++worker) {
      EXPECT_EQ(workers.averages(worker), 20);
    }
  });
}

FormedGroup only(const std::vector<FormedGroup>& told) {
  EXPECT_THAT(told, SizeIs(1));
  return told.empty() ? FormedGroup{} : told.front();
}

TEST(GroupGenerator, a_division_tells_everybody_and_asking_again_changes_nothing) {
  GroupGenerator generator({.workers = 6, .group_size = 3});
  std::vector<FormedGroup> told;
  ASSERT_TRUE(generator.request(4, &told).ok());
  ASSERT_THAT(told, SizeIs(2));
  EXPECT_EQ(told[0].initiator, 4);
  expect_division_of(ranks(6), {told[0].group.members, told[1].group.members});
  told.clear();
  for (const int worker : ranks(6)) ASSERT_TRUE(generator.request(worker, &told).ok());
  EXPECT_THAT(told, IsEmpty());
}

TEST(GroupGenerator, who_still_has_a_group_is_in_no_further_division) {
  GroupGenerator generator({.workers = 4, .group_size = 2});
  std::vector<FormedGroup> told;
  ASSERT_TRUE(generator.request(0, &told).ok());
  ASSERT_THAT(told, SizeIs(2));
  const Group first = told[0].group;
  told.clear();
  for (const int member : first.members) {
    ASSERT_TRUE(generator.done(member, first.sequence, &told).ok());
  }
  ASSERT_TRUE(generator.request(first.members[1], &told).ok());
  EXPECT_EQ(only(told).group.members, first.members);
}

TEST(GroupGenerator, the_filter_leaves_out_who_lags_until_it_asks_itself) {
  for (const int filter : {2, 3}) {
    GroupGenerator generator({.workers = 3, .group_size = 3, .filter = filter});
    std::vector<FormedGroup> told;
    const auto ask = [&](int initiator) {
      told.clear();
      EXPECT_TRUE(generator.request(initiator, &told).ok());
      return only(told).group;
    };
    const auto finish = [&](int worker, const Group& group) {
      EXPECT_TRUE(generator.done(worker, group.sequence, &told).ok());
    };
    // Worker 2 takes long, and the others average twice without it.
    const Group all = ask(2);
    EXPECT_THAT(all.members, ElementsAre(0, 1, 2));
    finish(0, all);
    finish(1, all);
    for (const int initiator : {0, 1}) {
      const Group two = ask(initiator);
      EXPECT_THAT(two.members, ElementsAre(0, 1));
      finish(0, two);
      finish(1, two);
    }
    finish(2, all);
    // It has averaged once, and worker 0 asks for the fourth time.
    const Group next = ask(0);
    if (filter == 3) {
      EXPECT_THAT(next.members, ElementsAre(0, 1, 2));
      continue;
    }
    EXPECT_THAT(next.members, ElementsAre(0, 1));
    finish(0, next);
    finish(1, next);
    // When it asks itself it waits already, and delays nobody.
    EXPECT_THAT(ask(2).members, ElementsAre(0, 1, 2));
  }
}

TEST(GroupGenerator, inter_intra_puts_two_steps_into_the_buffers) {
  const Topology hosts = topology_in_blocks(8, 4);
  GroupGenerator generator(
      {.workers = 8, .policy = GroupPolicy::inter_intra, .group_size = 2, .topology = &hosts});
  std::vector<FormedGroup> told;
  ASSERT_TRUE(generator.request(5, &told).ok());
  std::vector<std::vector<int>> groups;
  for (const FormedGroup& formed : told) groups.push_back(formed.group.members);
  ASSERT_GE(groups.size(), 3u);
  EXPECT_THAT(groups[groups.size() - 2], ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(groups.back(), ElementsAre(4, 5, 6, 7));
  groups.resize(groups.size() - 2);
  expect_division_of(ranks(8), groups);
}

TEST(GroupGenerator, random_groups_wait_for_the_locks_of_all_their_members) {
  GroupGenerator generator({.workers = 3, .policy = GroupPolicy::random, .group_size = 3});
  std::vector<FormedGroup> told;
  ASSERT_TRUE(generator.request(0, &told).ok());
  EXPECT_EQ(only(told).initiator, 0);
  told.clear();
  ASSERT_TRUE(generator.request(1, &told).ok());
  EXPECT_THAT(told, IsEmpty());
  ASSERT_TRUE(generator.done(0, 1, &told).ok());
  ASSERT_TRUE(generator.done(2, 1, &told).ok());
  EXPECT_THAT(told, IsEmpty()) << "worker 1 is still locked";
  ASSERT_TRUE(generator.done(1, 1, &told).ok());
  EXPECT_EQ(only(told).initiator, 1);
  EXPECT_EQ(only(told).group.sequence, 2u);
}

/// The sum of the squared distances of `models` from their mean.
double disagreement(const std::vector<double>& models) {
  const auto count = static_cast<double>(models.size());
  const double mean = std::accumulate(models.begin(), models.end(), 0.0) / count;
  return std::accumulate(models.begin(), models.end(), 0.0,
                         [&](double sum, double x) { return sum + (x - mean) * (x - mean); });
}

TEST(GroupGenerator, a_random_group_contracts_as_the_closed_form_says) {
  constexpr int workers = 16, groups = 8000;
  for (const int size : {2, 3, 8}) {
    GroupGenerator generator(
        {.workers = workers, .policy = GroupPolicy::random, .group_size = size});
    double sum = 0;
    for (int i = 0; i < groups; ++i) {
      std::vector<FormedGroup> told;
      ASSERT_TRUE(generator.request(i % workers, &told).ok());
      const Group group = only(told).group;
      std::vector<double> models(workers);
      std::iota(models.begin(), models.end(), 0.0);
      const double mean =
          static_cast<double>(std::accumulate(group.members.begin(), group.members.end(), 0)) /
          static_cast<double>(group.members.size());
      const double before = disagreement(models);
      for (const int member : group.members) {
        models[static_cast<std::size_t>(member)] = mean;
        ASSERT_TRUE(generator.done(member, group.sequence, &told).ok());
      }
      sum += disagreement(models) / before;
    }
    EXPECT_NEAR(sum / groups, (workers - size) / (workers - 1.0), 0.01) << "groups of " << size;
  }
}

TEST(GroupGenerator, who_has_left_is_drawn_no_more) {
  const Topology hosts = topology_in_blocks(4, 2);
  for (const GroupPolicy policy : policies) {
    GroupGenerator generator({.workers = 4, .policy = policy, .group_size = 4, .topology = &hosts});
    ASSERT_TRUE(generator.leave(2).ok());
    EXPECT_TRUE(generator.gone(2));
    std::vector<FormedGroup> told;
    ASSERT_TRUE(generator.request(0, &told).ok());
    for (const FormedGroup& formed : told) {
      EXPECT_THAT(formed.group.members, ::testing::Not(::testing::Contains(2)));
    }
  }
}

TEST(GroupGenerator, one_seed_makes_one_history) {
  const auto history = [](std::uint64_t seed) {
    GroupGenerator generator({.workers = 9, .group_size = 3, .seed = seed});
    std::vector<std::vector<int>> groups;
    for (int round = 0; round < 5; ++round) {
      std::vector<FormedGroup> told;
      EXPECT_TRUE(generator.request(round, &told).ok());
      std::vector<FormedGroup> none;
      for (const FormedGroup& formed : told) {
        groups.push_back(formed.group.members);
        for (const int member : formed.group.members) {
          EXPECT_TRUE(generator.done(member, formed.group.sequence, &none).ok());
        }
      }
    }
    return groups;
  };
  EXPECT_EQ(history(3), history(3));
  EXPECT_NE(history(3), history(4));
}

TEST(GroupGenerator, what_no_worker_can_say_is_refused) {
  const Topology hosts = topology_in_blocks(4, 2);
  for (const GroupPolicy policy : policies) {
    GroupGenerator generator({.workers = 4, .policy = policy, .topology = &hosts});
    std::vector<FormedGroup> told;
    const auto expect_bad = [&](const Status& status) {
      EXPECT_EQ(status.code(), Code::bad_data);
      EXPECT_EQ(status.peer(), 1);
      EXPECT_THAT(status.message(), HasSubstr("rank 1"));
    };
    expect_bad(generator.done(1, 1, &told));
    ASSERT_TRUE(generator.request(1, &told).ok());
    const std::uint64_t sequence = told.front().group.sequence;
    expect_bad(generator.done(1, sequence + 100, &told));
    expect_bad(generator.done(1, 0, &told));
    if (policy == GroupPolicy::random) expect_bad(generator.request(1, &told));
    ASSERT_TRUE(generator.leave(1).ok());
    expect_bad(generator.leave(1));
    expect_bad(generator.request(1, &told));
  }
  EXPECT_THROW(GroupGenerator({.workers = 4, .group_size = 1}), Error);
  EXPECT_THROW(GroupGenerator({.workers = 0}), Error);
  EXPECT_THROW(GroupGenerator({.workers = 4, .policy = GroupPolicy::inter_intra}), Error);
}

}  // namespace
}  // namespace slip
