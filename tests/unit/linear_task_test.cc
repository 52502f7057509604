#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "file_support.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/task.h"

namespace slip {
namespace {

using testing::Each;
using testing::HasSubstr;
using Vector = std::vector<float>;

ConstVectorView read(const Vector& x) { return view(std::span(x)); }
VectorView write(Vector& x) { return view(std::span(x)); }

/// Rows whose class is the sign of their first feature less half the second.
std::string separable(int rows, std::uint64_t seed) {
  Random random(seed);
  std::string text;
  for (int row = 0; row < rows; ++row) {
    const double a = random.uniform(-1, 1), b = random.uniform(-1, 1);
    text += (a > b / 2 ? "+1" : "-1");
    text += " 1:" + std::to_string(a) + " 2:" + std::to_string(b) + " 6:0.5\n";
  }
  return text;
}

class LinearTaskFiles : public FolderTest {
 protected:
  LinearTaskFiles() {
    write_file("data", separable(400, 1));
    write_file("data.t", separable(200, 2));
  }

  TaskOptions options(const std::string& model) const {
    TaskOptions options;
    options.task = "libsvm:" + (folder_ / "data").string();
    options.model = model;
    return options;
  }
};

class LinearTask : public LinearTaskFiles, public testing::WithParamInterface<const char*> {
 protected:
  TaskOptions options() const { return LinearTaskFiles::options(GetParam()); }
};

TEST_P(LinearTask, GradientIsTheDerivativeOfTheLoss) {
  const auto task = make_task(options());
  ASSERT_EQ(task->parameter_count(), 7u);
  Random random(3);
  for (int trial = 0; trial < 20; ++trial) {
    Vector x(7), g(7, 99), unused(7);
    // Margins are near 0, so that none of the batch crosses the hinge's corner at 1.
    for (float& value : x) value = static_cast<float>(random.uniform(-0.2, 0.2));
    const auto k = static_cast<Iteration>(trial);
    task->gradient(read(x), k, write(g));
    for (std::size_t i = 0; i < x.size(); ++i) {
      Vector up = x, down = x;
      up[i] += 0x1p-10F;
      down[i] -= 0x1p-10F;
      const double slope = (task->gradient(read(up), k, write(unused)) -
                            task->gradient(read(down), k, write(unused))) /
                           (static_cast<double>(up[i]) - static_cast<double>(down[i]));
      EXPECT_NEAR(g[i], slope, 1e-6) << "parameter " << i;
    }
  }
}

TEST_P(LinearTask, LossesAreThoseOfTheFormulas) {
  write_file("one", "1 1:2\n-1 1:2\n");
  write_file("one.t", "1 1:2\n-1 1:1\n");
  TaskOptions o = options();
  o.task = "libsvm:" + (folder_ / "one").string();
  const auto task = make_task(o);
  // Scores 3.5 and 2, margins 3.5 and -2.
  const double expected = std::string(GetParam()) == "svm"
                              ? (0.0 + 3.0) / 2
                              : (std::log1p(std::exp(-3.5)) + std::log1p(std::exp(2.0))) / 2;
  const Evaluation evaluation = task->evaluate(read({1.5, 0.5}));
  EXPECT_NEAR(evaluation.loss, expected, 1e-12);
  EXPECT_EQ(evaluation.accuracy, 0.5);
  Vector unused(2);
  EXPECT_NEAR(task->evaluate(read({1e30F, 0})).loss, 5e29, 1e24) << "no overflow";
}

TEST_P(LinearTask, LearnsWhatIsSeparable) {
  const auto task = make_task(options());
  Vector x(task->parameter_count(), 99), g(x.size());
  task->initialise(write(x));
  EXPECT_THAT(x, Each(0.0F));
  for (Iteration k = 0; k < 500; ++k) {
    task->gradient(read(x), k, write(g));
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] -= static_cast<float>(task->default_learning_rate()) * g[i];
    }
  }
  EXPECT_GT(task->evaluate(read(x)).accuracy.value(), 0.97);
}

TEST_P(LinearTask, IsAPureFunctionOfSeedRankAndIteration) {
  const Vector x(7, 0.1F);
  const auto gradient = [&](int rank, std::uint64_t seed, Iteration k) {
    TaskOptions o = options();
    o.workers = 3;
    o.rank = rank;
    o.seed = seed;
    o.batch = 4;
    Vector g(7);
    make_task(o)->gradient(read(x), k, write(g));
    return g;
  };
  EXPECT_EQ(gradient(1, 1, 5), gradient(1, 1, 5));
  EXPECT_NE(gradient(1, 1, 5), gradient(2, 1, 5));
  EXPECT_NE(gradient(1, 1, 5), gradient(1, 2, 5));
  EXPECT_NE(gradient(1, 1, 5), gradient(1, 1, 6));
}

TEST_P(LinearTask, TakesThePartitionsOfImages) {
  for (const char* partition : {"iid", "dirichlet=0.1", "shards=2"}) {
    TaskOptions o = options();
    o.partition = partition;
    o.workers = 5;
    double samples = 0;
    for (o.rank = 0; o.rank < o.workers; ++o.rank) {
      samples += make_task(o)->iterations_per_epoch() * o.batch;
    }
    EXPECT_NEAR(samples, 400, 1e-9) << partition;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LinearTask, testing::Values("svm", "logistic"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(LinearTaskFiles, TheModelIsSvmUnlessNamed) {
  EXPECT_EQ(make_task(options(""))->model(), "svm");
  EXPECT_EQ(make_task(options("logistic"))->model(), "logistic");
  expect_refused([&] { make_task(options("mlp")); }, Code::invalid_argument,
                 testing::AllOf(HasSubstr("'mlp'"), HasSubstr("allowed with --task libsvm:"),
                                HasSubstr("are svm, logistic")));
}

}  // namespace
}  // namespace slip
