#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/model_internal.h"
#include "slipstream/trainer/tasks/task.h"

namespace slip {
namespace {

using Vector = std::vector<float>;
using testing::HasSubstr;

TaskOptions digits(const std::string& model) {
  TaskOptions options;
  options.task = "digits";
  options.model = model;
  return options;
}

ConstVectorView read(const Vector& x) { return view(std::span(x)); }
VectorView write(Vector& x) { return view(std::span(x)); }

Vector start(Task& task) {
  Vector x(task.parameter_count());
  task.initialise(write(x));
  return x;
}

double squared_length(const Vector& x) {
  return std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
}

TEST(ModelsMissing, DataTasksNameThePackageToInstall) {
  if (have_models()) GTEST_SKIP() << "this build has LibTorch";
  try {
    make_task(digits("mlp"));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_supported);
    EXPECT_THAT(error.what(), HasSubstr("libtorch-dev"));
  }
}

class Models : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!have_models()) GTEST_SKIP() << "this build has no LibTorch (package libtorch-dev)";
  }
};

TEST_P(Models, GradientIsTheDerivativeOfTheLoss) {
  const auto task = make_task(digits(GetParam()));
  const Vector x = start(*task);
  Vector g(x.size(), 99), unused(x.size());
  EXPECT_GT(task->gradient(read(x), 3, write(g)), 0);

  // Along the gradient, and along random signs, within what float arithmetic can show.
  Random random(4);
  for (int trial = 0; trial < 4; ++trial) {
    Vector direction = g;
    if (trial > 0) std::ranges::generate(direction, [&] { return random.below(2) ? 1.0f : -1.0f; });
    const double length = std::sqrt(squared_length(direction));
    const double expected = std::inner_product(g.begin(), g.end(), direction.begin(), 0.0) / length;
    constexpr double step = 2e-3;
    Vector up = x, down = x;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto move = static_cast<float>(step * direction[i] / length);
      up[i] += move;
      down[i] -= move;
    }
    const double slope = (task->gradient(read(up), 3, write(unused)) -
                          task->gradient(read(down), 3, write(unused))) /
                         (2 * step);
    EXPECT_NEAR(slope, expected, 0.02 * std::sqrt(squared_length(g))) << "trial " << trial;
  }
}

TEST_P(Models, FollowTheVectorsWhereverTheyAre) {
  const auto task = make_task(digits(GetParam()));
  const Vector x = start(*task);
  Vector first(x.size()), second(x.size(), 5);
  const double loss = task->gradient(read(x), 0, write(first));
  const Vector elsewhere = x;
  EXPECT_EQ(task->gradient(read(elsewhere), 0, write(second)), loss);
  EXPECT_EQ(first, second);
}

TEST_P(Models, SeeParametersThatChangedInPlace) {
  const auto task = make_task(digits(GetParam()));
  Vector x = start(*task), before(x.size()), after(x.size());
  const double loss = task->gradient(read(x), 0, write(before));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] -= 0.01f * before[i];
  EXPECT_LT(task->gradient(read(x), 0, write(after)), loss);
  EXPECT_NE(before, after);
}

TEST_P(Models, EvaluationLeavesTheGradientAlone) {
  const auto task = make_task(digits(GetParam()));
  const Vector x = start(*task);
  Vector g(x.size());
  task->gradient(read(x), 0, write(g));
  const Vector before = g;
  const Evaluation evaluation = task->evaluate(read(x));
  EXPECT_EQ(g, before);
  ASSERT_TRUE(evaluation.accuracy);
  EXPECT_NEAR(*evaluation.accuracy, 0.1, 0.1);  // untrained
  EXPECT_NEAR(evaluation.loss, std::log(10.0), 1);
}

TEST_P(Models, StartFromTheSeedAloneOnEveryRank) {
  TaskOptions options = digits(GetParam());
  options.workers = 3;
  const Vector x = start(*make_task(options));
  options.rank = 2;
  EXPECT_EQ(start(*make_task(options)), x);
  options.seed = 2;
  EXPECT_NE(start(*make_task(options)), x);
}

TEST_P(Models, RunOnTheCallersThreadOnly) {
  const auto threads = [] {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return std::distance(begin(tasks), end(tasks));
  };
  TaskOptions options = digits(GetParam());
  options.batch = 256;
  const auto task = make_task(options);
  const Vector x = start(*task);
  Vector g(x.size());
  // A thread that has not computed before, as a simulated worker may meet.
  std::thread([&] {
    const auto before = threads();
    task->gradient(read(x), 0, write(g));
    EXPECT_EQ(threads(), before);
    task->evaluate(read(x));
    EXPECT_EQ(threads(), before);
  }).join();
}

INSTANTIATE_TEST_SUITE_P(All, Models, testing::Values("softmax", "mlp", "lenet", "gn_lenet"));

class Learning : public Models {
 protected:
  /// The accuracy after `iterations` of plain SGD.
  static double learn(const TaskOptions& options, Iteration iterations) {
    const auto task = make_task(options);
    Vector x = start(*task), g(x.size());
    const auto rate = static_cast<float>(task->default_learning_rate());
    for (Iteration k = 0; k < iterations; ++k) {
      task->gradient(read(x), k, write(g));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] -= rate * g[i];
    }
    return task->evaluate(read(x)).accuracy.value();
  }
};

TEST_P(Learning, DigitsAreLearnt) { EXPECT_GT(learn(digits(GetParam()), 200), 0.8); }

TEST_P(Learning, MnistIsLearnt) {
  const char* folder = std::getenv("SLIP_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "SLIP_TEST_DATA does not name a folder with mnist/";
  TaskOptions options = digits(GetParam());
  options.task = std::string("mnist:") + folder + "/mnist";
  EXPECT_GT(learn(options, 200), 0.8);
}

INSTANTIATE_TEST_SUITE_P(All, Learning, testing::Values("softmax", "mlp", "lenet"));

TEST(ModelNames, UnknownOnesAreRefusedWithTheAllowedOnes) {
  if (!have_models()) GTEST_SKIP() << "this build has no LibTorch (package libtorch-dev)";
  try {
    make_task(digits("vgg"));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_THAT(
        error.what(),
        HasSubstr(
            "'vgg' is unknown; allowed with --task digits are softmax, mlp, lenet, gn_lenet"));
  }
}

}  // namespace
}  // namespace slip
