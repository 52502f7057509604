// bfloat16 on the wire: how far means are off, that all members have the same, and what it saves.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "averaging.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/runtime/launch.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::options_of;
using testing::Path;

class WireTest : public ::testing::TestWithParam<std::tuple<Path, Algorithm>> {
 protected:
  static constexpr int workers = 6;

  /// What each worker has after `rounds` operations of everyone, the last of which is returned.
  template <class T>
  static std::vector<std::vector<T>> means(std::size_t count, bool in_place, bool registered) {
    const auto [path, algorithm] = GetParam();
    std::vector<std::vector<T>> results(workers);
    const PartialAllReduceOptions options{
        .in_place = in_place, .wire = Wire::bf16, .algorithm = algorithm};
    launch(
        workers,
        [&](World& world) {
          PartialAllReduce partial(world, "vector", count, dtype_of<T>(), options);
          std::vector<T> own(count);
          const auto vector = [&] {
            return registered ? partial.buffer().as<T>() : std::span(own);
          };
          for (std::uint64_t k = 1; k <= 3; ++k) {
            const Group group{k, testing::everyone(workers)};
            testing::fill<T>(vector(), world.rank(), k);
            const Status status =
                registered ? partial.mean(group) : partial.mean(group, view(std::span(own)));
            status.throw_if_failed();
          }
          results[static_cast<std::size_t>(world.rank())].assign(vector().begin(), vector().end());
        },
        options_of(path));
    return results;
  }

  template <class T>
  static void expect_error(std::size_t count) {
    std::vector<std::vector<T>> vectors(workers, std::vector<T>(count));
    for (int rank = 0; rank < workers; ++rank) {
      testing::fill<T>(vectors[static_cast<std::size_t>(rank)], rank, 3);
    }
    for (const bool in_place : {false, true}) {
      for (const bool registered : {false, true}) {
        const auto results = means<T>(count, in_place, registered);
        for (const auto& result : results) EXPECT_EQ(result, results.front());
        for (std::size_t i = 0; i < count; ++i) {
          double sum = 0;
          double size = 0;
          for (const auto& vector : vectors) {
            sum += static_cast<double>(vector[i]) / workers;
            size += std::abs(static_cast<double>(vector[i])) / workers;
          }
          ASSERT_LE(std::abs(static_cast<double>(results.front()[i]) - sum), bf16_error * size);
        }
      }
    }
  }
};

TEST_P(WireTest, TheMeanIsTheSameEverywhereAndWithinItsDocumentedError) {
  expect_error<float>(7);
  expect_error<float>(50'000);
  expect_error<double>(20'000);
}

INSTANTIATE_TEST_SUITE_P(
    , WireTest,
    ::testing::Combine(::testing::Values(Path::mapped, Path::put, Path::mapped_hosts,
                                         Path::delayed_hosts, Path::simulated_links),
                       ::testing::Values(Algorithm::one_shot, Algorithm::two_shot,
                                         Algorithm::hierarchical)),
    [](const auto& info) {
      std::string name = to_string(std::get<0>(info.param)) + "_" +
                         std::string(to_string(std::get<1>(info.param)));
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

/// Virtual time of a mean of 4 MiB between workers, two on each host.
Duration time_of(Wire wire, Algorithm algorithm) {
  Time end{};
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.world.network.workers_per_host = 2;
  options.world.network.link = {1e9, 5us};
  launch(
      6,
      [&](World& world) {
        PartialAllReduce partial(world, "vector", 1 << 20, Dtype::float32,
                                 {.wire = wire, .algorithm = algorithm});
        partial.mean({1, testing::everyone(6)}).throw_if_failed();
        end = std::max(end, world.now());
      },
      options);
  return end;
}

TEST(Wire, Bf16HalvesTheTimeOfFloats) {
  for (const Algorithm algorithm : {Algorithm::two_shot, Algorithm::hierarchical}) {
    const double ratio =
        to_seconds(time_of(Wire::bf16, algorithm)) / to_seconds(time_of(Wire::exact, algorithm));
    EXPECT_NEAR(ratio, 0.5, 0.02) << to_string(algorithm);
  }
}

TEST(Wire, MembersWithAnotherOneAreTold) {
  launch(2, [](World& world) {
    const Wire wire = world.rank() == 0 ? Wire::exact : Wire::bf16;
    PartialAllReduce partial(world, "vector", 10'000, Dtype::float32, {.wire = wire});
    EXPECT_EQ(partial.mean({1, {0, 1}}).code(), Code::peer_mismatch);
    world.bootstrap().fence(60s);
  });
}

}  // namespace
}  // namespace slip
