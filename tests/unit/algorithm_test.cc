#include "slipstream/collectives/algorithm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>
#include <vector>

#include "averaging.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/runtime/launch.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

LaunchOptions hosts_of(int per_host, sim::Link link, sim::Link inner) {
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.world.network.workers_per_host = per_host;
  options.world.network.link = link;
  options.world.network.inner_link = inner;
  return options;
}

struct Outcome {
  Algorithm algorithm;
  double seconds;  // virtual
};

Outcome run(int workers, std::size_t count, const LaunchOptions& launched,
            const PartialAllReduceOptions& options) {
  Outcome result{};
  launch(
      workers,
      [&](World& world) {
        PartialAllReduce partial(world, "vector", count, Dtype::float32, options);
        const Group group{1, testing::everyone(workers)};
        partial.announce(group).throw_if_failed();
        world.bootstrap().fence(never);
        const Time begin = world.now();
        partial.mean(group).throw_if_failed();
        result.seconds = std::max(result.seconds, to_seconds(world.now() - begin));
        result.algorithm = partial.algorithm(group);
      },
      launched);
  return result;
}

TEST(AlgorithmTest, BetweenHostsALargeVectorTakesNoMoreThanAFifthAboveTheBoundOfTheNics) {
  constexpr std::size_t count = 1 << 20;
  constexpr double rate = 1e9;
  for (const int hosts : {2, 4}) {
    for (const int per_host : {2, 4}) {
      const LaunchOptions options = hosts_of(per_host, {rate, 5us}, {20e9, 1us});
      const Outcome hierarchical = run(hosts * per_host, count, options, {});
      EXPECT_EQ(hierarchical.algorithm, Algorithm::hierarchical);
      const double bound = 2.0 * (hosts - 1) / hosts * count * sizeof(float) / rate;
      EXPECT_GE(hierarchical.seconds, bound);
      EXPECT_LE(hierarchical.seconds, 1.2 * bound) << hosts << " hosts of " << per_host;
      // Without a hierarchy every byte leaves a host once for each of its workers.
      const Outcome flat =
          run(hosts * per_host, count, options, {.algorithm = Algorithm::two_shot});
      EXPECT_GE(flat.seconds, per_host * bound);
    }
  }
}

TEST(AlgorithmTest, BetweenHostsEachNicCarriesItsPart) {
  constexpr std::size_t count = 1 << 20;
  constexpr double rate = 1e9;
  constexpr int hosts = 2;
  LaunchOptions options = hosts_of(8, {rate, 5us}, {0, 1us});
  options.world.machines = {SLIP_TOPOLOGIES "/two_socket.xml"};  // with four NICs
  options.world.network.nics_per_host = 4;
  const Outcome outcome = run(hosts * 8, count, options, {});
  EXPECT_EQ(outcome.algorithm, Algorithm::hierarchical);
  const double bound = 2.0 * (hosts - 1) / hosts * count * sizeof(float) / rate / 4;
  EXPECT_GE(outcome.seconds, bound);
  EXPECT_LE(outcome.seconds, 1.2 * bound);
}

TEST(AlgorithmTest, AGroupHasAsManyRailsAsTheHostThatHasFewest) {
  LaunchOptions options = hosts_of(8, {1e9, 5us}, {});
  options.world.machines = {SLIP_TOPOLOGIES "/two_socket.xml"};
  launch(
      16,
      [](World& world) {
        PartialAllReduce partial(world, "vector", 1 << 20, Dtype::float32);
        const auto rails = [&](std::vector<int> members) {
          return partial.shape({1, std::move(members)}).rails;
        };
        // The leaders are 0, 2, 4, 6 and 8, 10, 12, 14.
        EXPECT_EQ(rails(testing::everyone(16)), 4);
        EXPECT_EQ(rails({0, 2, 4, 8, 10}), 2);
        EXPECT_EQ(rails({0, 2, 4, 9, 11}), 1);
        EXPECT_EQ(rails({0, 1, 2, 3}), 1) << "one host";
      },
      options);
}

TEST(AlgorithmTest, TheModelIsRightAboutWhatIsFastestOrNearlyAsFast) {
  for (const int per_host : {1, 2, 4}) {
    for (const sim::Link inner : {sim::Link{0, 0us}, sim::Link{10e9, 1us}, sim::Link{1e9, 20us}}) {
      const LaunchOptions options = hosts_of(per_host, {1e9, 10us}, inner);
      for (const std::size_t count : {2, 500, 1000, 10'000, 200'000}) {
        const Outcome chosen = run(8, count, options, {});
        for (const Algorithm other :
             {Algorithm::one_shot, Algorithm::two_shot, Algorithm::hierarchical}) {
          if (other == Algorithm::one_shot && count > 1000) continue;
          EXPECT_LE(chosen.seconds, 1.5 * run(8, count, options, {.algorithm = other}).seconds)
              << to_string(chosen.algorithm) << " rather than " << to_string(other) << ", " << count
              << " elements, " << per_host << " per host";
        }
      }
    }
  }
}

TEST(AlgorithmTest, EverybodyChoosesAlike) {
  launch(
      7,
      [](World& world) {
        for (const std::size_t count : {1, 700, 50'000}) {
          PartialAllReduce partial(world, std::to_string(count), count, Dtype::float32);
          for (unsigned mask = 1; mask < 1u << 7; ++mask) {
            Group group{mask, {}};
            for (int rank = 0; rank < 7; ++rank) {
              if ((mask >> rank & 1) != 0) group.members.push_back(rank);
            }
            const std::string name = std::to_string(count) + "/" + std::to_string(mask);
            const std::string own(to_string(partial.algorithm(group)));
            if (world.rank() == 0) world.bootstrap().put(name, own);
            EXPECT_EQ(world.bootstrap().get(name, never), own);
          }
        }
      },
      hosts_of(3, {1e9, 10us}, {}));
}

TEST(AlgorithmTest, ConstantsAndChoiceCanBeOverridden) {
  const LaunchOptions options = hosts_of(2, {1e9, 10us}, {});
  CostModel no_nic;  // between hosts as inside one
  no_nic.outer = no_nic.inner;
  EXPECT_EQ(run(4, 100'000, options, {}).algorithm, Algorithm::hierarchical);
  EXPECT_EQ(run(4, 100'000, options, {.costs = no_nic}).algorithm, Algorithm::two_shot);
  EXPECT_EQ(run(4, 100'000, options, {.algorithm = Algorithm::one_shot}).algorithm,
            Algorithm::one_shot);
  EXPECT_EQ(run(4, 100'000, hosts_of(4, {}, {}), {.algorithm = Algorithm::hierarchical}).algorithm,
            Algorithm::two_shot);
}

TEST(AlgorithmTest, ASmallVectorGoesInOneShotAndALargeOneDoesNot) {
  const CostModel model;
  const GroupShape pair{2, 1, 2};
  EXPECT_LT(model.seconds(Algorithm::one_shot, 8, pair),
            model.seconds(Algorithm::two_shot, 8, pair));
  EXPECT_GT(model.seconds(Algorithm::one_shot, 1 << 20, pair),
            model.seconds(Algorithm::two_shot, 1 << 20, pair));
}

TEST(AlgorithmTest, ModelledLinksStandInForTheMeasuredPaths) {
  launch(
      2,
      [](World& world) {
        const CostModel model = cost_model(world);
        EXPECT_EQ(model.outer.bandwidth, 1e9);
        EXPECT_DOUBLE_EQ(model.outer.latency, 10e-6);
        EXPECT_EQ(model.inner.latency, 0);
        EXPECT_EQ(model.to_text().substr(0, 17), "inside a host 0 u");
      },
      hosts_of(1, {1e9, 10us}, {}));
}

}  // namespace
}  // namespace slip
