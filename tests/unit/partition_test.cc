#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/mini_batches_internal.h"
#include "slipstream/trainer/tasks/partition_internal.h"

namespace slip {
namespace {

using testing::HasSubstr;

std::vector<std::uint8_t> random_labels(std::size_t count, std::uint64_t seed = 7) {
  Random random(seed);
  std::vector<std::uint8_t> labels(count);
  for (auto& label : labels) label = static_cast<std::uint8_t>(random.below(10));
  return labels;
}

std::size_t classes_in(const std::vector<std::uint32_t>& share,
                       const std::vector<std::uint8_t>& labels) {
  std::set<std::uint8_t> classes;
  for (const std::uint32_t i : share) classes.insert(labels[i]);
  return classes.size();
}

class EveryPartition : public testing::TestWithParam<const char*> {};

TEST_P(EveryPartition, GivesEachSampleToExactlyOneWorker) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto labels = random_labels(1003, seed);
    std::vector<int> owners(labels.size());
    const Shares shares = partition(labels, GetParam(), 7, seed);
    ASSERT_EQ(shares.size(), 7u);
    for (const auto& share : shares) {
      for (const std::uint32_t i : share) ++owners.at(i);
    }
    EXPECT_TRUE(std::ranges::all_of(owners, [](int n) { return n == 1; }));
  }
}

TEST_P(EveryPartition, IsAPureFunctionOfTheSeed) {
  const auto labels = random_labels(500);
  EXPECT_EQ(partition(labels, GetParam(), 5, 3), partition(labels, GetParam(), 5, 3));
  EXPECT_NE(partition(labels, GetParam(), 5, 3), partition(labels, GetParam(), 5, 4));
}

TEST_P(EveryPartition, RefusesFewerSamplesThanWorkers) {
  EXPECT_THROW(partition(random_labels(4), GetParam(), 5, 1), Error);
}

INSTANTIATE_TEST_SUITE_P(Partition, EveryPartition,
                         testing::Values("iid", "dirichlet=0.01", "dirichlet=0.1", "dirichlet=100",
                                         "shards=1", "shards=5"));

TEST(Partition, IidSharesAreEqualAndMixed) {
  const auto labels = random_labels(1003);
  for (const auto& share : partition(labels, "iid", 8, 1)) {
    EXPECT_NEAR(static_cast<double>(share.size()), 1003.0 / 8, 1);
    EXPECT_EQ(classes_in(share, labels), 10u);
  }
}

TEST(Partition, DirichletSharesAreEqual) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    for (const char* name : {"dirichlet=0.01", "dirichlet=1"}) {
      for (const int workers : {1, 3, 10, 16, 25}) {
        for (const auto& share : partition(random_labels(2003), name, workers, seed)) {
          EXPECT_NEAR(static_cast<double>(share.size()), 2003.0 / workers, 1);
        }
      }
    }
  }
}

TEST(Partition, SmallAlphaMeansFewClassesPerWorker) {
  const auto labels = random_labels(10000);
  // The mean over workers of the largest class's part in a share.
  const auto purity = [&](const char* name) {
    double sum = 0;
    for (const auto& share : partition(labels, name, 10, 1)) {
      std::vector<double> part(10);
      for (const std::uint32_t i : share)
        part[labels[i]] += 1.0 / static_cast<double>(share.size());
      sum += std::ranges::max(part) / 10;
    }
    return sum;
  };
  EXPECT_LT(purity("dirichlet=1000"), 0.2);
  EXPECT_GT(purity("dirichlet=0.05"), 0.5);
}

TEST(Partition, ShardsHoldFewClasses) {
  const auto labels = random_labels(5000);
  for (const auto& share : partition(labels, "shards=2", 10, 1)) {
    EXPECT_EQ(share.size(), 500u);
    EXPECT_LE(classes_in(share, labels), 4u);  // a piece of 250 of about 500 lies in at most two
  }
}

TEST(Partition, RefusesWhatItDoesNotKnowInOneLine) {
  for (const char* name :
       {"", "IID", "iid=1", "dirichlet", "dirichlet=", "dirichlet=0", "dirichlet=-1", "dirichlet=x",
        "shards=0", "shards=1.5", "shards", "user"}) {
    SCOPED_TRACE(name);
    try {
      partition(random_labels(100), name, 2, 1);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      EXPECT_THAT(error.what(), HasSubstr("--partition"));
      EXPECT_THAT(error.what(), testing::Not(HasSubstr("\n")));
    }
  }
}

std::vector<std::uint32_t> share_of(std::uint32_t size) {
  std::vector<std::uint32_t> share(size);
  std::iota(share.begin(), share.end(), 100u);
  return share;
}

auto shared(const std::vector<std::uint32_t>& share) {
  return std::make_shared<const std::vector<std::uint32_t>>(share);
}

std::vector<std::uint32_t> batch_at(MiniBatches& batches, Iteration iteration) {
  const auto batch = batches.at(iteration);
  return {batch.begin(), batch.end()};
}

TEST(MiniBatches, EachPassHoldsEachSampleOnceInAnotherOrder) {
  MiniBatches batches(shared(share_of(12)), 4, 1, 0);
  std::vector<std::vector<std::uint32_t>> passes(2);
  for (Iteration k = 0; k < 6; ++k) {
    const auto batch = batch_at(batches, k);
    passes[k / 3].insert(passes[k / 3].end(), batch.begin(), batch.end());
  }
  EXPECT_NE(passes[0], passes[1]);
  for (auto& pass : passes) {
    std::ranges::sort(pass);
    EXPECT_EQ(pass, share_of(12));
  }
}

TEST(MiniBatches, ABatchMaySpanPasses) {
  MiniBatches batches(shared(share_of(3)), 8, 1, 0);
  std::vector<std::uint32_t> drawn;
  for (Iteration k = 0; k < 3; ++k) {
    const auto batch = batch_at(batches, k);
    ASSERT_EQ(batch.size(), 8u);
    drawn.insert(drawn.end(), batch.begin(), batch.end());
  }
  for (const std::uint32_t sample : share_of(3)) EXPECT_EQ(std::ranges::count(drawn, sample), 8);
  EXPECT_DOUBLE_EQ(batches.iterations_per_epoch(), 3.0 / 8);
}

TEST(MiniBatches, DoNotDependOnWhatWasAskedBefore) {
  MiniBatches forward(shared(share_of(50)), 8, 9, 2), other(shared(share_of(50)), 8, 9, 2);
  std::vector<std::vector<std::uint32_t>> expected;
  for (Iteration k = 0; k < 40; ++k) expected.push_back(batch_at(forward, k));
  for (const Iteration k : {39u, 3u, 17u, 17u, 0u, 6u, 38u}) {
    EXPECT_EQ(batch_at(other, k), expected[k]) << "iteration " << k;
  }
}

TEST(MiniBatches, DifferBetweenRanksAndSeeds) {
  MiniBatches a(shared(share_of(500)), 8, 1, 0), b(shared(share_of(500)), 8, 1, 1),
      c(shared(share_of(500)), 8, 2, 0);
  EXPECT_NE(batch_at(a, 0), batch_at(b, 0));
  EXPECT_NE(batch_at(a, 0), batch_at(c, 0));
}

TEST(MiniBatches, TheLastIterationThereCanBeIsInBounds) {
  MiniBatches batches(shared(share_of(10)), largest_batch, 1, 0);
  for (const std::uint32_t sample : batches.at(max_iteration)) {
    ASSERT_GE(sample, 100u);
    ASSERT_LT(sample, 110u);
  }
}

}  // namespace
}  // namespace slip
