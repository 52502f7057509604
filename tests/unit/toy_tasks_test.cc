#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/task.h"

namespace slip {
namespace {

using Vector = std::vector<double>;
using testing::HasSubstr;

std::unique_ptr<Task> task(const std::string& name, int rank = 0, int workers = 4,
                           std::uint64_t seed = 1) {
  TaskOptions options;
  options.task = name;
  options.rank = rank;
  options.workers = workers;
  options.seed = seed;
  return make_task(options);
}

ConstVectorView read(const Vector& x) { return view(std::span(x)); }
VectorView write(Vector& x) { return view(std::span(x)); }

Vector start(Task& task) {
  Vector x(task.parameter_count(), 99);
  task.initialise(write(x));
  return x;
}

Vector gradient(Task& task, const Vector& x) {
  Vector g(x.size(), 99);
  task.gradient(read(x), 0, write(g));
  return g;
}

double squared_length(const Vector& x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return sum;
}

TEST(NoneTask, HasNoParameters) {
  const auto none = task("none");
  EXPECT_EQ(none->parameter_count(), 0u);
  Vector empty;
  EXPECT_EQ(none->gradient(read(empty), 5, write(empty)), 0);
  EXPECT_FALSE(none->evaluate(read(empty)).accuracy);
}

TEST(TargetsTask, PullsEachRankToItsNumber) {
  const auto targets = task("targets", 3);
  EXPECT_EQ(targets->dtype(), Dtype::float64);
  EXPECT_EQ(start(*targets), Vector{0});
  Vector x{5}, g{0};
  EXPECT_EQ(targets->gradient(read(x), 0, write(g)), 2);  // (5 - 3)^2 / 2
  EXPECT_EQ(g, Vector{2});
}

TEST(TargetsTask, LossIsTheMeanOverWorkers) {
  for (const int workers : {1, 2, 7}) {
    for (const double x : {-1.0, 0.0, 2.5}) {
      double mean = 0;
      for (int i = 0; i < workers; ++i) mean += (x - i) * (x - i) / 2 / workers;
      EXPECT_NEAR(task("targets", 0, workers)->evaluate(read({x})).loss, mean, 1e-12);
    }
  }
}

using Floats = std::vector<float>;

Floats start_of_consensus(const std::string& name, int rank, int workers = 4,
                          std::uint64_t seed = 1) {
  const auto consensus = task(name, rank, workers, seed);
  EXPECT_EQ(consensus->dtype(), Dtype::float32);
  Floats x(consensus->parameter_count(), 99);
  consensus->initialise(view(std::span(x)));
  return x;
}

TEST(ConsensusTask, StartsApartAndHasNoGradient) {
  const auto consensus = task("consensus:dim=50");
  EXPECT_TRUE(consensus->own_start());
  const Floats x = start_of_consensus("consensus:dim=50", 0);
  EXPECT_EQ(x.size(), 50u);
  EXPECT_EQ(x, start_of_consensus("consensus:dim=50", 0));
  EXPECT_NE(x, start_of_consensus("consensus:dim=50", 1));
  EXPECT_NE(x, start_of_consensus("consensus:dim=50", 0, 4, 2));
  Floats g(50, 99);
  EXPECT_EQ(consensus->gradient(view(std::span(std::as_const(x).data(), x.size())), 0,
                                view(std::span(g))),
            0);
  EXPECT_EQ(g, Floats(50, 0));
  double squares = 0;
  for (const double value : x) squares += value * value;
  EXPECT_NEAR(consensus->evaluate(view(std::span(std::as_const(x)))).loss, squares / 50, 1e-12);
}

class Quadratic : public testing::Test {
 protected:
  static constexpr int workers = 6;
  static constexpr const char* name = "quadratic:dim=8,mu=0.5,l=2,zeta2=0.3,r0=7";

  Quadratic() {
    for (int rank = 0; rank < workers; ++rank) tasks_.push_back(task(name, rank, workers));
  }

  Vector mean_gradient(const Vector& x) {
    Vector mean(x.size());
    for (const auto& t : tasks_) {
      const Vector g = gradient(*t, x);
      for (std::size_t i = 0; i < x.size(); ++i) mean[i] += g[i] / workers;
    }
    return mean;
  }

  Vector optimum() {
    Vector x = start(*tasks_[0]);
    for (int step = 0; step < 2000; ++step) {
      const Vector g = mean_gradient(x);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] -= 0.3 * g[i];
    }
    return x;
  }

  std::vector<std::unique_ptr<Task>> tasks_;
};

TEST_F(Quadratic, GradientIsTheDerivativeOfTheLoss) {
  Random random(5);
  Vector x(8), unused(8);
  for (double& value : x) value = random.uniform(-3, 3);
  const Vector g = gradient(*tasks_[2], x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    Vector up = x, down = x;
    up[i] += 1e-4;
    down[i] -= 1e-4;
    const double slope = (tasks_[2]->gradient(read(up), 0, write(unused)) -
                          tasks_[2]->gradient(read(down), 0, write(unused))) /
                         2e-4;
    EXPECT_NEAR(g[i], slope, 1e-6);
  }
}

TEST_F(Quadratic, OptimumIsAtDistanceR0WithLossZero) {
  const Vector x = optimum();
  EXPECT_EQ(squared_length(start(*tasks_[0])), 0);
  EXPECT_NEAR(std::sqrt(squared_length(x)), 7, 1e-9);
  for (const auto& t : tasks_) EXPECT_NEAR(t->evaluate(read(x)).loss, 0, 1e-15);
}

TEST_F(Quadratic, HeterogeneityAtTheOptimumIsZeta2) {
  const Vector x = optimum();
  double zeta2 = 0;
  for (const auto& t : tasks_) zeta2 += squared_length(gradient(*t, x)) / workers;
  EXPECT_NEAR(zeta2, 0.3, 1e-9);
}

TEST_F(Quadratic, LossIsTheMeanOfTheWorkersLossesAboveTheOptimum) {
  const Vector best = optimum();
  const Vector x(8, 1.5);
  Vector unused(8);
  double above = 0;
  for (const auto& t : tasks_) {
    above += (t->gradient(read(x), 0, write(unused)) - t->gradient(read(best), 0, write(unused))) /
             workers;
  }
  EXPECT_NEAR(tasks_[3]->evaluate(read(x)).loss, above, 1e-9);
}

TEST_F(Quadratic, CurvatureLiesBetweenTheSquaresOfMuAndL) {
  Random random(11);
  for (const auto& t : tasks_) {
    const Vector origin = gradient(*t, Vector(8, 0.0));
    for (int trial = 0; trial < 200; ++trial) {
      Vector d(8);
      for (double& value : d) value = random.uniform(-1, 1);
      const Vector g = gradient(*t, d);
      double along = 0;
      for (std::size_t i = 0; i < d.size(); ++i) along += d[i] * (g[i] - origin[i]);
      EXPECT_GE(along, 0.25 * squared_length(d) * (1 - 1e-9));
      EXPECT_LE(along, 4 * squared_length(d) * (1 + 1e-9));
    }
  }
}

TEST_F(Quadratic, CurvatureHasBothEndsOfItsSpectrum) {
  // The trace of the Hessian is the sum of the squared, evenly spaced singular values.
  double expected = 0;
  for (int k = 0; k < 8; ++k) expected += std::pow(0.5 + 1.5 * k / 7, 2);
  const Vector origin = gradient(*tasks_[0], Vector(8, 0.0));
  double trace = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    Vector unit(8, 0.0);
    unit[i] = 1;
    trace += gradient(*tasks_[0], unit)[i] - origin[i];
  }
  EXPECT_NEAR(trace, expected, 1e-9);
}

TEST_F(Quadratic, IsAPureFunctionOfTheSeed) {
  const Vector x(8, 0.5);
  EXPECT_EQ(gradient(*task(name, 1, workers), x), gradient(*tasks_[1], x));
  EXPECT_NE(gradient(*task(name, 1, workers, 2), x), gradient(*tasks_[1], x));
}

TEST(QuadraticTask, OneWorkerHasNoHeterogeneity) {
  const auto alone = task("quadratic", 0, 1);
  Vector x = start(*alone);
  EXPECT_EQ(x.size(), 10u);
  for (int step = 0; step < 2000; ++step) {
    const Vector g = gradient(*alone, x);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] -= alone->default_learning_rate() * g[i];
  }
  EXPECT_NEAR(squared_length(gradient(*alone, x)), 0, 1e-20);
  EXPECT_NEAR(std::sqrt(squared_length(x)), 10, 1e-9);
}

TEST(MakeTask, RefusesWhatItDoesNotKnowInOneLine) {
  const struct {
    const char* name;
    const char* says;
  } cases[] = {
      {"nonsense", "'nonsense' is unknown; allowed are digits"},
      {"", "allowed are digits"},
      {"mnist", "mnist:DIR"},
      {"none:x=1", "has no setting 'x'; allowed are none"},
      {"targets:dim=2", "has no setting 'dim'"},
      {"consensus:dim=0", "from 1 to"},
      {"consensus:dim=1.5", "whole number"},
      {"consensus:dim=abc", "dim"},
      {"consensus:dim", "dim"},
      {"quadratic:mu=-1", "from 0.001 to 1000"},
      {"quadratic:mu=2,l=1", "mu <= l"},
      {"quadratic:dim=1000000", "from 1 to 200"},
      {"quadratic:rank=1", "allowed are dim, mu, l, zeta2, r0"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    try {
      task(c.name);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      EXPECT_THAT(error.what(), HasSubstr(c.says));
      EXPECT_THAT(error.what(), testing::Not(HasSubstr("\n")));
    }
  }
}

TEST(MakeTask, RefusesRanksAndBatchesOutOfRange) {
  EXPECT_THROW(task("targets", 4, 4), Error);
  EXPECT_THROW(task("targets", -1, 4), Error);
  EXPECT_THROW(task("targets", 0, 0), Error);
  TaskOptions options;
  options.task = "targets";
  for (const int batch : {0, -1, 1 << 20}) {
    options.batch = batch;
    EXPECT_THROW(make_task(options), Error) << batch;
  }
}

}  // namespace
}  // namespace slip
