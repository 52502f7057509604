#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "file_support.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/movielens_internal.h"
#include "slipstream/trainer/tasks/partition_internal.h"
#include "slipstream/trainer/tasks/task.h"

namespace slip {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using Vector = std::vector<float>;

ConstVectorView read(const Vector& x) { return view(std::span(x)); }
VectorView write(Vector& x) { return view(std::span(x)); }

class MovieLens : public FolderTest {
 protected:
  MovieLens() {
    write_file("u1.base", "7\t30\t4\t881250949\n7\t10\t1\t0\n5\t30\t3.5\t0\n");
    write_file("u1.test", "5\t10\t2\t0\n9\t40\t5\t0\n");
  }
};

TEST_F(MovieLens, ReadsRatingsAndNumbersUsersAndItemsAsTheyCome) {
  const RatingData data = read_movielens(folder_);
  EXPECT_EQ(data.users, 3u);
  EXPECT_EQ(data.items, 3u);
  EXPECT_THAT(data.train.users, ElementsAre(0, 0, 1));
  EXPECT_THAT(data.train.items, ElementsAre(0, 1, 0));
  EXPECT_THAT(data.train.ratings, ElementsAre(4, 1, 3.5));
  EXPECT_THAT(data.test.users, ElementsAre(1, 2));
  EXPECT_THAT(data.test.items, ElementsAre(1, 2));
}

TEST_F(MovieLens, ASplitMayBeNamedAndPacked) {
  write_file("ua.base.gz", gzip("1\t1\t4\t0\n"));
  write_file("ua.test.xz", xz("1\t1\t2\t0\n"));
  EXPECT_EQ(read_movielens(folder_ / "ua").train.size(), 1u);
  EXPECT_EQ(read_movielens(folder_).train.size(), 3u);
}

TEST_F(MovieLens, LargeNumbersTakeNoMemory) {
  write_file("u1.base", "18446744073709551615\t4000000000\t4\t0\n");
  EXPECT_EQ(read_movielens(folder_).users, 3u);
}

TEST_F(MovieLens, DamagedFilesAreRefusedWithTheirLineAndWhatIsWrong) {
  const auto refused = [&](const std::string& text, const std::string& why) {
    write_file("u1.base", text);
    expect_refused([&] { read_movielens(folder_); }, Code::bad_data,
                   AllOf(HasSubstr("u1.base"), HasSubstr(why)));
  };
  refused("1\t1\t4\t0\n1\tx\t4\t0\n", ":2: 'x' is no number of an item");
  refused("-1\t1\t4\t0\n", ":1: '-1' is no number of a user");
  refused("1\t1\n", ":1: '' is no rating");
  refused("\n", ":1: '' is no number of a user");
  refused("1\t1\tnan\t0\n", "'nan' is no rating");
  refused("1\t1\t11\t0\n", "'11' is no rating; allowed are numbers from 0 to 10");
  refused("1\t99999999999999999999999\t4\t0\n", "is no number of an item");
  refused("", "it holds no ratings");
  const std::string packed_bytes = gzip("1\t1\t4\t0\n");
  refused(packed_bytes.substr(0, packed_bytes.size() - 4), "damaged");
  fs::remove(folder_ / "u1.base");
  expect_refused([&] { read_movielens(folder_); }, Code::not_found, HasSubstr("u1.base"));
}

// ---- Partitions.

TEST(RatingPartition, ByUserKeepsAUsersRatingsTogetherAndDealsUsersEvenly) {
  Random random(3);
  std::vector<std::uint32_t> users;
  for (std::uint32_t user = 0; user < 23; ++user) {
    for (std::uint64_t i = 0; i <= random.below(30); ++i) users.push_back(user);
  }
  shuffle(users, random);
  const Shares shares = partition_ratings(users, "user", 5, 1);
  std::size_t ratings = 0;
  std::set<std::uint32_t> seen;
  for (const auto& share : shares) {
    std::set<std::uint32_t> own;
    for (const std::uint32_t i : share) own.insert(users[i]);
    EXPECT_TRUE(own.size() == 4 || own.size() == 5) << own.size();
    for (const std::uint32_t user : own) EXPECT_TRUE(seen.insert(user).second) << "shared";
    ratings += share.size();
  }
  EXPECT_EQ(ratings, users.size());
  EXPECT_EQ(shares, partition_ratings(users, "user", 5, 1));
  EXPECT_NE(shares, partition_ratings(users, "user", 5, 2));
}

TEST(RatingPartition, RefusesMoreWorkersThanUsersAndUnknownNames) {
  const std::vector<std::uint32_t> users{0, 1, 1, 1, 2};
  expect_refused([&] { partition_ratings(users, "user", 4, 1); }, Code::invalid_argument,
                 HasSubstr("at least 4 users"));
  EXPECT_NO_THROW(partition_ratings(users, "iid", 4, 1));
  expect_refused([&] { partition_ratings(users, "shards=2", 2, 1); }, Code::invalid_argument,
                 HasSubstr("allowed are iid, user"));
}

// ---- Matrix factorisation.

class RatingTask : public FolderTest {
 protected:
  /// Ratings of taste: a user likes some kinds of items and not others.
  RatingTask() {
    write_file("u1.base", ratings(3000, 1));
    write_file("u1.test", ratings(600, 2));
  }
  static std::string ratings(int count, std::uint64_t seed) {
    Random random(seed);
    std::string text;
    for (int i = 0; i < count; ++i) {
      const auto user = random.below(30), item = random.below(20);
      const int rating = (user + item) % 3 == 0 ? 5 : 2;
      text += std::to_string(user) + "\t" + std::to_string(item) + "\t" + std::to_string(rating) +
              "\t0\n";
    }
    return text;
  }
  TaskOptions options() const {
    TaskOptions options;
    options.task = "movielens:" + folder_.string();
    options.partition = "user";
    options.workers = 3;
    return options;
  }
};

TEST_F(RatingTask, GradientIsTheDerivativeOfTheLoss) {
  const auto task = make_task(options());
  EXPECT_EQ(task->model(), "mf");
  ASSERT_EQ(task->parameter_count(), 50 * 20u);
  Vector x(1000), g(1000, 99), unused(1000);
  task->initialise(write(x));
  task->gradient(read(x), 2, write(g));
  Random random(4);
  for (int trial = 0; trial < 50; ++trial) {
    const std::size_t i = random.below(1000);
    Vector up = x, down = x;
    up[i] += 0x1p-7F;
    down[i] -= 0x1p-7F;
    const double slope = (task->gradient(read(up), 2, write(unused)) -
                          task->gradient(read(down), 2, write(unused))) /
                         (static_cast<double>(up[i]) - static_cast<double>(down[i]));
    EXPECT_NEAR(g[i], slope, 1e-4) << "parameter " << i;
  }
}

TEST_F(RatingTask, TheLossIsTheMeanSquaredErrorOfHeldOutRatings) {
  write_file("u1.base", "1\t1\t4\t0\n2\t2\t1\t0\n");
  write_file("u1.test", "1\t2\t3\t0\n2\t1\t2\t0\n");
  TaskOptions o = options();
  o.workers = 1;
  const auto task = make_task(o);
  const Evaluation evaluation = task->evaluate(read(Vector(80, 0.5F)));  // predicts 5
  EXPECT_NEAR(evaluation.loss, (4.0 + 9.0) / 2, 1e-12);
  EXPECT_FALSE(evaluation.accuracy);
}

TEST_F(RatingTask, LearnsTastes) {
  TaskOptions o = options();
  o.workers = 1;
  const auto task = make_task(o);
  Vector x(task->parameter_count()), g(x.size());
  task->initialise(write(x));
  const double before = task->evaluate(read(x)).loss;
  for (Iteration k = 0; k < 3000; ++k) {
    task->gradient(read(x), k, write(g));
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] -= static_cast<float>(task->default_learning_rate()) * g[i];
    }
  }
  EXPECT_GT(before, 1.5);
  EXPECT_LT(task->evaluate(read(x)).loss, 0.5);
}

TEST_F(RatingTask, HasOneModel) {
  TaskOptions o = options();
  o.model = "mlp";
  expect_refused([&] { make_task(o); }, Code::invalid_argument, HasSubstr("are mf"));
}

TEST(MovieLensReal, ReadsTheCanonicalSplits) {
  const char* folder = std::getenv("SLIP_TEST_DATA");
  if (folder == nullptr) {
    GTEST_SKIP() << "SLIP_TEST_DATA does not name a folder with movielens-100k/";
  }
  const fs::path data = fs::path(folder) / "movielens-100k";
  for (const auto& [split, ratings] : {std::pair{"u1", 80'000u}, {"ua", 90'570u}}) {
    const RatingData read = read_movielens(data / split);
    EXPECT_EQ(read.train.size(), ratings) << split;
    EXPECT_EQ(read.test.size(), 100'000u - ratings) << split;
    EXPECT_EQ(read.users, 943u);
    EXPECT_EQ(read.items, 1682u);
  }
}

}  // namespace
}  // namespace slip
