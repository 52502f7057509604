// The Trainer as a user sees it, over every protocol, in the simulator and on threads.

#include "slipstream/trainer/trainer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "slipstream/runtime/launch.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

struct Case {
  std::string protocol;
  LaunchKind kind;
};

std::string case_name(const testing::TestParamInfo<Case>& info) {
  return info.param.protocol +
         (info.param.kind == LaunchKind::simulated ? "_simulated" : "_threads");
}

LaunchOptions launch_options(LaunchKind kind) {
  LaunchOptions options;
  options.kind = kind;
  return options;
}

/// Of this process alone, which runs one test at a time.
std::string checkpoint_path() {
  return testing::TempDir() + "slip-" + std::to_string(getpid()) + ".ckpt";
}

std::unique_ptr<ProtocolConfig> config_of(const std::string& name) {
  return make_protocol_config(name);
}

class EveryProtocol : public testing::TestWithParam<Case> {
 protected:
  bool free_running() const { return config_of(GetParam().protocol)->free_running(); }

  /// Nothing keeps them together but the machine.
  bool unpaced() const { return free_running() && GetParam().kind == LaunchKind::threads; }
  /// How near to the common optimum all come. Some make more steps than others where they are free,
  /// or where who is first counts.
  double tolerance(double bound) const {
    const bool race = GetParam().protocol == "dybw" && GetParam().kind == LaunchKind::threads;
    return unpaced() || race ? 0.7 : bound;
  }
  /// Who is done first takes no further part, and a late one would pull the mean its way: these
  /// have no limit of their own, and all end when `end_after` says so.
  Iteration limit(Iteration iterations) const { return unpaced() ? max_iteration : iterations; }
  Heterogeneity pace() const {
    return free_running() ? Heterogeneity({"1ms", {}, "", 6, 1}) : Heterogeneity();
  }
};

/// Rank 0 ends the run for all once it has done as many.
void end_after(Iteration iterations, const World& world, Trainer& trainer) {
  if (world.rank() == 0 && trainer.iterations_done() >= iterations) trainer.stop();
}

/// f_i(x) = (x - i)^2 / 2 at worker i: the mean of the models goes to the mean of the ranks.
void descend(const World& world, Trainer& trainer, Iteration iterations = max_iteration) {
  while (trainer.running()) {
    end_after(iterations, world, trainer);
    world.compute([&] {
      trainer.gradient().as<double>()[0] = trainer.parameters().as<double>()[0] - world.rank();
    });
    ASSERT_TRUE(trainer.step(trainer.gradient()).ok()) << trainer.status().message();
  }
  trainer.average();
}

TEST_P(EveryProtocol, DescendsToTheMeanOfTheTargets) {
  launch(
      6,
      [&](World& world) {
        double x = 0;
        TrainerOptions options;
        options.iterations = limit(400);
        options.learning_rate = 0.05;
        options.heterogeneity = pace();
        Trainer trainer(world, {{&x, 1, Dtype::float64}}, config_of(GetParam().protocol), options);
        descend(world, trainer, 400);
        if (!unpaced()) {
          EXPECT_EQ(trainer.iterations_done(), 400U);
        }
        EXPECT_NEAR(x, 2.5, tolerance(1e-3));
      },
      launch_options(GetParam().kind));
}

TEST_P(EveryProtocol, StartsFromRankZerosParameters) {
  launch(
      3,
      [&](World& world) {
        std::vector<float> first(5, static_cast<float>(world.rank() + 1));
        std::vector<float> second(2, static_cast<float>(10 * (world.rank() + 1)));
        Trainer trainer(world, {{first.data(), 5}, {second.data(), 2}},
                        config_of(GetParam().protocol), {.iterations = 1});
        EXPECT_EQ(first, std::vector<float>(5, 1));
        EXPECT_EQ(second, std::vector<float>(2, 10));
        EXPECT_EQ(trainer.parameters().count, 7U);
        EXPECT_EQ(trainer.parameters().as<float>()[6], 10);
      },
      launch_options(GetParam().kind));
}

TEST_P(EveryProtocol, TakesTheUsersOwnOptimizer) {
  launch(
      4,
      [&](World& world) {
        double x = 0;
        TrainerOptions options;
        options.iterations = limit(300);
        options.heterogeneity = pace();
        Trainer trainer(world, {{&x, 1, Dtype::float64}}, config_of(GetParam().protocol), options);
        while (trainer.running()) {
          end_after(300, world, trainer);
          world.compute([] {});
          ASSERT_TRUE(trainer
                          .step([&](VectorView p) {
                            p.as<double>()[0] -= 0.05 * (p.as<double>()[0] - world.rank());
                          })
                          .ok());
        }
        trainer.average();
        EXPECT_NEAR(x, 1.5, tolerance(1e-2));
      },
      launch_options(GetParam().kind));
}

TEST_P(EveryProtocol, StopsEverybodyTogetherOrWhereItIs) {
  std::vector<Iteration> done(5);
  launch(
      5,
      [&](World& world) {
        TrainerOptions options;
        options.heterogeneity = Heterogeneity({"1ms,jitter=0.2", {"random,x=6,p=1/n"}, "", 5, 7});
        if (world.rank() == 3) options.time_limit = 30ms;
        Trainer trainer(world, {{nullptr, 4}}, config_of(GetParam().protocol), options);
        while (trainer.running()) {
          world.compute([] {});
          ASSERT_TRUE(trainer.step(trainer.gradient()).ok());
        }
        done[static_cast<std::size_t>(world.rank())] = trainer.iterations_done();
      },
      launch_options(GetParam().kind));
  for (const Iteration iterations : done) {
    EXPECT_GT(iterations, 0U);
    if (!free_running()) {
      EXPECT_EQ(iterations, done[0]);
    }
  }
}

TEST_P(EveryProtocol, EvaluatesOnTheSideAndStopsAtTheTarget) {
  launch(
      4,
      [&](World& world) {
        double x = 10;
        TrainerOptions options;
        options.learning_rate = 0.1;
        options.iterations = 1000;
        options.evaluate_every = 5;
        options.evaluate = [](ConstVectorView mean) {
          return Evaluation{std::abs(mean.as<double>()[0] - 1.5), {}};
        };
        options.target = Target{"loss", 0.01};
        options.heterogeneity = Heterogeneity({"1ms", {}, "", 4, 1});
        Trainer trainer(world, {{&x, 1, Dtype::float64}}, config_of(GetParam().protocol), options);
        descend(world, trainer);
        EXPECT_LT(trainer.iterations_done(), 1000U);
        EXPECT_NEAR(x, 1.5, tolerance(0.1));
        if (world.rank() != 0) return;
        ASSERT_FALSE(trainer.curve().empty());
        EXPECT_EQ(trainer.curve().front().iteration, 0U);
        EXPECT_NEAR(trainer.curve().front().evaluation.loss, 8.5, 1e-9);
        EXPECT_TRUE(trainer.target_reached().has_value());
      },
      launch_options(GetParam().kind));
}

TEST(Evaluation, IsOfTheMeanModelOrTheMeanOfEachOnes) {
  for (const bool each : {false, true}) {
    LaunchOptions simulated;
    simulated.kind = LaunchKind::simulated;
    launch(
        4,
        [&](World& world) {
          double x = world.rank();  // 0 to 3
          TrainerOptions options;
          options.iterations = 1;
          options.own_start = true;
          options.evaluate_every = 1;
          options.evaluate_each = each;
          options.evaluate = [](ConstVectorView model) {
            const double value = model.as<double>()[0];
            return Evaluation{value * value, value / 4};
          };
          Trainer trainer(world, {{&x, 1, Dtype::float64}}, Hop{}, options);
          descend(world, trainer);
          if (world.rank() != 0) return;
          const Evaluation start = trainer.curve().at(0).evaluation;
          EXPECT_NEAR(start.loss, each ? 14.0 / 4 : 2.25, 1e-12);
          EXPECT_NEAR(start.accuracy.value(), 1.5 / 4, 1e-12);
        },
        simulated);
  }
}

TEST_P(EveryProtocol, AWorldOfOneTrains) {
  launch(
      1,
      [&](World& world) {
        double x = 4;
        Trainer trainer(world, {{&x, 1, Dtype::float64}}, config_of(GetParam().protocol),
                        {.learning_rate = 0.2, .iterations = 100});
        descend(world, trainer);
        EXPECT_NEAR(x, 0, 1e-6);
      },
      launch_options(GetParam().kind));
}

TEST_P(EveryProtocol, GoesOnFromACheckpointAsIfItHadNotStopped) {
  const std::string path = checkpoint_path();
  const auto train = [&](Iteration iterations, bool resume, bool save) {
    double result = 0;
    launch(
        1,
        [&](World& world) {
          double x = 4;
          TrainerOptions options;
          options.iterations = iterations;
          options.momentum = 0.9;
          options.learning_rate = 0.02;
          Trainer trainer(world, {{&x, 1, Dtype::float64}}, config_of(GetParam().protocol),
                          options);
          if (resume) trainer.load(path);
          while (trainer.running()) {
            trainer.gradient().as<double>()[0] = trainer.parameters().as<double>()[0];
            ASSERT_TRUE(trainer.step(trainer.gradient()).ok());
          }
          EXPECT_EQ(trainer.iterations_done(), iterations);
          if (save) trainer.save(path);
          result = x;
        },
        launch_options(GetParam().kind));
    return result;
  };
  train(20, false, true);
  EXPECT_EQ(train(50, true, false), train(50, false, false));
  // Several workers begin in the middle, too.
  launch(
      4,
      [&](World& world) {
        double x = 0;
        Trainer trainer(world, {{&x, 1, Dtype::float64}}, config_of(GetParam().protocol),
                        {.learning_rate = 0.1, .iterations = 40});
        trainer.load(path);
        EXPECT_EQ(trainer.iterations_done(), 20U);
        descend(world, trainer);
        EXPECT_EQ(trainer.iterations_done(), 40U);
      },
      launch_options(GetParam().kind));
  std::remove(path.c_str());
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const std::string_view name : protocol_names()) {
    cases.push_back({std::string(name), LaunchKind::simulated});
    cases.push_back({std::string(name), LaunchKind::threads});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Trainer, EveryProtocol, testing::ValuesIn(all_cases()), case_name);

/// The error that a launch ends with.
std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Trainer, NamesWhatTheWorkersDisagreeAbout) {
  const std::string what = error_of([] {
    launch(3, [](World& world) {
      Trainer trainer(world, {{nullptr, 4}}, Hop{.max_gap = world.rank() == 2 ? 4 : 5});
    });
  });
  EXPECT_NE(what.find("rank 2 has max_gap=4, rank 0 has max_gap=5"), std::string::npos) << what;
}

TEST(Trainer, RefusesMisuseWithAReason) {
  launch(1, [](World& world) {
    Trainer trainer(world, {{nullptr, 4}}, Hop{}, {.iterations = 2});
    EXPECT_FALSE(trainer.step(trainer.gradient()).ok()) << "step before running";
    EXPECT_NE(error_of([&] { trainer.average(); }).find("average() belongs after"),
              std::string::npos);
    ASSERT_TRUE(trainer.running());
    float small[2] = {};
    EXPECT_EQ(trainer.step(VectorView{small, 2, Dtype::float32}).code(), Code::invalid_argument);
    EXPECT_NE(error_of([&] { trainer.load(trainer.checkpoint(), "x"); }).find("before running()"),
              std::string::npos);
  });
}

TEST(Trainer, EndsWithTheReasonWhenAWorkerFails) {
  const std::string what = error_of([] {
    launch(3, [](World& world) {
      Trainer trainer(world, {{nullptr, 4}}, Hop{});
      while (trainer.running()) {
        if (world.rank() == 1 && trainer.iteration() == 5) {
          throw Error(Code::bad_data, "the data ran out");
        }
        if (const Status status = trainer.step(trainer.gradient()); !status) {
          EXPECT_NE(status.message().find("rank 1: the data ran out"), std::string::npos);
        }
      }
    });
  });
  EXPECT_EQ(what, "the data ran out");
}

TEST(Trainer, TakesItsOwnMomentumOutOfAWorldsCheckpoint) {
  const auto bytes = [](double x) {
    const auto* data = reinterpret_cast<const std::byte*>(&x);
    return Checkpoint::Vector(data, data + sizeof x);
  };
  Checkpoint saved{.dtype = Dtype::float64, .count = 1, .iteration = 3, .parameters = bytes(7)};
  for (int rank = 0; rank < 3; ++rank) saved.velocities.push_back(bytes(rank + 1));
  launch(3, [&](World& world) {
    const auto momentum_from = [&](int workers) {
      Checkpoint checkpoint = saved;
      checkpoint.workers = workers;
      Trainer trainer(world, {{nullptr, 1, Dtype::float64}}, Hop{}, {.momentum = 0.5});
      trainer.load(checkpoint, "here");
      EXPECT_EQ(trainer.checkpoint().parameters, saved.parameters);
      EXPECT_EQ(trainer.checkpoint().iteration, 3U);
      return trainer.checkpoint().velocities.at(0);
    };
    EXPECT_EQ(momentum_from(3), bytes(world.rank() + 1));
    EXPECT_EQ(momentum_from(0), bytes(1)) << "what one worker saved";
    EXPECT_EQ(momentum_from(2), bytes(0)) << "of another world";
  });
}

TEST(Trainer, RefusesACheckpointOfAnotherVersion) {
  const std::string path = checkpoint_path();
  write_checkpoint({}, path);
  std::FILE* file = std::fopen(path.c_str(), "r+b");
  ASSERT_NE(file, nullptr);
  std::fseek(file, 40, SEEK_SET);
  std::fputc(9, file);
  std::fclose(file);
  EXPECT_NE(error_of([&] { read_checkpoint(path); }).find("of version 9"), std::string::npos);
  std::remove(path.c_str());
}

TEST(Trainer, RefusesADamagedCheckpoint) {
  const std::string path = checkpoint_path();
  launch(1, [&](World& world) {
    Trainer trainer(world, {{nullptr, 4}}, Hop{}, {.iterations = 2});
    trainer.save(path);
    std::FILE* file = std::fopen(path.c_str(), "r+b");
    ASSERT_NE(file, nullptr);
    std::fseek(file, 60, SEEK_SET);
    std::fputc('x', file);
    std::fclose(file);
    EXPECT_NE(error_of([&] { trainer.load(path); }).find("damaged"), std::string::npos);
    EXPECT_NE(error_of([&] { trainer.load("/nonexistent/file"); }).find("/nonexistent/file"),
              std::string::npos);
  });
  std::remove(path.c_str());
}

}  // namespace
}  // namespace slip
