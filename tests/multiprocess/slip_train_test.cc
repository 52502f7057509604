// `slip train` as its users meet it: lost workers, signals, agreed stops, worlds of one.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "slip_program.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/trainer/report.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

const std::vector<std::string> protocols = {"hop", "all_reduce", "d_psgd"};

std::vector<std::string> transports() {
  std::vector<std::string> names = {"shm", "threads", "sim"};
  if (SLIP_HAVE_UCX) names.emplace_back("ucx");
  return names;
}

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

constexpr Iteration long_end = 1000;

/// A run that lasts for 20 s if nothing ends it; its first line of progress comes after 2 s.
std::vector<std::string> long_run(const std::string& protocol, int workers = 8,
                                  Iteration end = long_end) {
  return {"train",   "--protocol", protocol, "--workers",    std::to_string(workers), "--task",
          "targets", "--compute",  "20ms",   "--iterations", std::to_string(end)};
}

constexpr const char* progress = "iteration ";

void expect_nothing_left(const SlipProgram& slip) {
  EXPECT_THAT(slip.processes_left(), IsEmpty());
  EXPECT_THAT(slip.files_left(), IsEmpty());
}

/// The same over UCX, where this build has it.
TEST(SlipTrain, AWorkerLostOverUcxEndsTheRunEverywhereAndIsNamedOnce) {
  if (!SLIP_HAVE_UCX) GTEST_SKIP() << "this build has no UCX (package libucx-dev)";
  for (const int rank : {0, 2}) {
    SlipProgram slip(long_run("hop", 4) + std::vector<std::string>{"--transport", "ucx"});
    ASSERT_TRUE(slip.wait_for_output(progress));
    ASSERT_EQ(kill(slip.worker(rank), SIGKILL), 0);
    const Outcome outcome = slip.wait();
    EXPECT_EQ(outcome.end.status, 1);
    EXPECT_TRUE(is_one_line(outcome.error)) << outcome.error;
    EXPECT_THAT(outcome.error, HasSubstr("rank " + std::to_string(rank)));
    expect_nothing_left(slip);
  }
}

class LostWorker : public testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(LostWorker, EndsTheRunEverywhereAndIsNamedOnce) {
  const auto& [protocol, rank] = GetParam();
  SlipProgram slip(long_run(protocol));
  ASSERT_TRUE(slip.wait_for_output(progress));
  ASSERT_EQ(kill(slip.worker(rank), SIGKILL), 0);
  const Outcome outcome = slip.wait();
  EXPECT_EQ(outcome.end.status, 1);
  EXPECT_EQ(outcome.error,
            fmt::format("slip train: rank {} was killed by signal 9 (SIGKILL)\n", rank));
  expect_nothing_left(slip);
}

INSTANTIATE_TEST_SUITE_P(SlipTrain, LostWorker,
                         testing::Combine(testing::ValuesIn(protocols), testing::Values(0, 3)),
                         [](const auto& info) {
                           return fmt::format("{}_rank_{}", std::get<0>(info.param),
                                              std::get<1>(info.param));
                         });

TEST(SlipTrain, AWorkerThatIsLostBeforeTheFirstIterationEndsTheRunToo) {
  SlipProgram slip(long_run("hop"));
  ASSERT_EQ(kill(slip.worker(5), SIGKILL), 0);
  const Outcome outcome = slip.wait();
  EXPECT_EQ(outcome.end.status, 1);
  // A worker that dies while it joins leaves a warning about its connection, too.
  EXPECT_TRUE(outcome.error.ends_with("slip train: rank 5 was killed by signal 9 (SIGKILL)\n"))
      << outcome.error;
  expect_nothing_left(slip);
}

TEST(SlipTrain, NothingOutlivesAKilledSlip) {
  for (const std::string& protocol : protocols) {
    // Longer than anybody waits for what is left to go.
    SlipProgram slip(long_run(protocol, 8, 2 * long_end));
    ASSERT_TRUE(slip.wait_for_output(progress));
    slip.signal(SIGKILL);
    EXPECT_EQ(slip.wait().end.signal, SIGKILL);
    expect_nothing_left(slip);
  }
}

/// All workers of the report that it left have stopped together.
Iteration common_end(const SlipProgram& slip, std::size_t workers) {
  const Report report = read_report(slip.folder() / "report.json");
  EXPECT_THAT(report.iterations, SizeIs(workers));
  EXPECT_THAT(report.iterations, Each(report.iterations.at(0)));
  return report.iterations.at(0);
}

TEST(SlipTrain, AStoppedWorkerIsAStragglerAndNotLost) {
  for (const std::string& protocol : protocols) {
    SlipProgram slip(long_run(protocol, 4) + std::vector<std::string>{"--report", "report.json"});
    const pid_t worker = slip.worker(2);
    ASSERT_TRUE(slip.wait_for_output(progress));
    ASSERT_EQ(kill(worker, SIGSTOP), 0);
    std::this_thread::sleep_for(2s);
    ASSERT_EQ(kill(worker, SIGCONT), 0);
    slip.signal(SIGINT);
    const Outcome outcome = slip.wait();
    EXPECT_TRUE(outcome.end.ok()) << outcome.error;
    EXPECT_EQ(outcome.error, "");
    EXPECT_GT(common_end(slip, 4), 0U);
  }
}

struct Stop {
  std::string name;
  std::string transport;
  int signal;
  bool to_group;
};

class AskedToStop : public testing::TestWithParam<std::tuple<std::string, Stop>> {};

TEST_P(AskedToStop, EndsAtOneIterationWithItsReport) {
  const auto& [protocol, stop] = GetParam();
  SlipProgram slip(long_run(protocol, 4) + std::vector<std::string>{"--transport", stop.transport,
                                                                    "--report", "report.json"});
  ASSERT_TRUE(slip.wait_for_output(progress));
  stop.to_group ? slip.signal_group(stop.signal) : slip.signal(stop.signal);
  const Outcome outcome = slip.wait();
  EXPECT_TRUE(outcome.end.ok()) << outcome.end.describe();
  EXPECT_EQ(outcome.error, "");
  EXPECT_THAT(outcome.output, HasSubstr("of 4 workers in"));
  const Iteration end = common_end(slip, 4);
  EXPECT_GE(end, long_end / 10);
  EXPECT_LT(end, long_end);
  EXPECT_THAT(slip.processes_left(), IsEmpty());
  EXPECT_THAT(slip.files_left(), SizeIs(1)) << "the report alone";
}

INSTANTIATE_TEST_SUITE_P(
    SlipTrain, AskedToStop,
    testing::Combine(testing::ValuesIn(protocols),
                     testing::Values(Stop{"ctrl_c", "shm", SIGINT, true},
                                     Stop{"sigint", "shm", SIGINT, false},
                                     Stop{"sigterm", "shm", SIGTERM, false},
                                     Stop{"ctrl_c_of_threads", "threads", SIGINT, true})),
    [](const auto& info) { return std::get<0>(info.param) + "_" + std::get<1>(info.param).name; });

TEST(SlipTrain, ASimulationStopsOnCtrlCToo) {
  // Of a run that is bounded by time a line comes every 5 s of its clock.
  SlipProgram slip({"train", "--transport", "sim", "--workers", "4", "--task", "targets",
                    "--compute", "20ms", "--seconds", "200000", "--report", "report.json"});
  ASSERT_TRUE(slip.wait_for_output(progress));
  slip.signal(SIGINT);
  EXPECT_TRUE(slip.wait().end.ok());
  EXPECT_LT(common_end(slip, 4), 10'000'000U);
}

/// The last worker of a chain never finishes its first iteration, and the others wait for it.
std::vector<std::string> stuck(const std::string& transport) {
  return {"train",  "--transport", transport,          "--workers",    "6",
          "--task", "targets",     "--graph",          "chain",        "--compute",
          "1ms",    "--slow",      "rank=5,x=1000000", "--iterations", "10"};
}

TEST(SlipTrain, ASecondSignalEndsAtOnce) {
  SlipProgram slip(stuck("shm"));
  ASSERT_TRUE(slip.wait_for_output(progress));
  slip.signal(SIGINT);
  slip.signal(SIGTERM);
  const Outcome outcome = slip.wait();
  EXPECT_EQ(outcome.end.status, 1);
  EXPECT_TRUE(is_one_line(outcome.error)) << outcome.error;
  EXPECT_THAT(outcome.error, HasSubstr("ended the run before the workers were done"));
  expect_nothing_left(slip);
}

TEST(SlipTrain, ASecondSignalEndsARunOfThreadsAtOnce) {
  SlipProgram slip(stuck("threads"));
  ASSERT_TRUE(slip.wait_for_output(progress));
  slip.signal(SIGINT);
  // Two of a kind count as one while the first has not been handled.
  const Time deadline = deadline_after(hang);
  while (!wait_ready(slip.pidfd(), POLLIN, deadline_after(100ms)) && steady_now() < deadline) {
    slip.signal(SIGINT);
  }
  EXPECT_EQ(slip.wait().end.signal, SIGINT);
  expect_nothing_left(slip);
}

class StopsTogether : public testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(StopsTogether, AfterTheTimeThatItWasGiven) {
  const auto& [protocol, transport] = GetParam();
  SlipProgram slip({"train", "--protocol", protocol, "--transport", transport, "--workers", "5",
                    "--task", "targets", "--compute", "5ms,jitter=0.5", "--slow",
                    "random,x=4,p=1/n", "--seconds", "1", "--report", "report.json"});
  const Outcome outcome = slip.wait();
  EXPECT_TRUE(outcome.end.ok()) << outcome.error;
  EXPECT_GT(common_end(slip, 5), 0U);
}

TEST_P(StopsTogether, AtTheTarget) {
  const auto& [protocol, transport] = GetParam();
  SlipProgram slip({"train", "--protocol", protocol, "--transport", transport, "--workers", "4",
                    "--task", "targets", "--compute", "1ms,jitter=0.5", "--evaluate-every", "5",
                    "--iterations", "20000", "--target", "loss=0.7", "--report", "report.json"});
  const Outcome outcome = slip.wait();
  EXPECT_TRUE(outcome.end.ok()) << outcome.error;
  EXPECT_LT(common_end(slip, 4), 20000U);
  const Report report = read_report(slip.folder() / "report.json");
  ASSERT_TRUE(report.target.has_value());
  EXPECT_TRUE(report.target->reached_at_seconds.has_value());
}

TEST(SlipTrain, ATargetThatDoesNotStopIsNoted) {
  SlipProgram slip({"train", "--transport", "sim", "--task", "targets", "--iterations", "400",
                    "--target", "loss=0.7,stop=false", "--report", "report.json"});
  const Outcome outcome = slip.wait();
  EXPECT_TRUE(outcome.end.ok()) << outcome.error;
  EXPECT_EQ(common_end(slip, 4), 400U);
  const Report report = read_report(slip.folder() / "report.json");
  ASSERT_TRUE(report.target.has_value());
  EXPECT_TRUE(report.target->reached_at_seconds.has_value());
}

INSTANTIATE_TEST_SUITE_P(SlipTrain, StopsTogether,
                         testing::Combine(testing::ValuesIn(protocols),
                                          testing::ValuesIn(transports())),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" + std::get<1>(info.param);
                         });

class WorldOfOne : public testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(WorldOfOne, Trains) {
  const auto& [protocol, transport] = GetParam();
  SlipProgram slip({"train", "--protocol", protocol, "--transport", transport, "--workers", "1",
                    "--task", "quadratic:dim=4", "--iterations", "30", "--report", "report.json"});
  const Outcome outcome = slip.wait();
  EXPECT_TRUE(outcome.end.ok()) << outcome.error;
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(common_end(slip, 1), 30U);
}

INSTANTIATE_TEST_SUITE_P(SlipTrain, WorldOfOne,
                         testing::Combine(testing::ValuesIn(protocols),
                                          testing::ValuesIn(transports())),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" + std::get<1>(info.param);
                         });

/// The names of the options that a report lists.
std::vector<std::string> options_of(const SlipProgram& slip) {
  std::vector<std::string> names;
  for (const auto& [name, value] : read_report(slip.folder() / "report.json").options) {
    names.push_back(value.empty() ? name : name + "=" + value);
  }
  return names;
}

TEST(SlipTrain, ReportsTheModelAndDataOfTasksThatHaveThem) {
  const std::vector<std::string> run = {"train",       "--transport",  "sim", "--report",
                                        "report.json", "--iterations", "3"};
  SlipProgram toy(run + std::vector<std::string>{"--task", "targets"});
  ASSERT_TRUE(toy.wait().end.ok());
  for (const char* name : {"model", "partition", "batch"}) {
    EXPECT_THAT(options_of(toy), Not(Contains(testing::StartsWith(name))));
  }
  const std::string rows = fmt::format("{}slip-rows-{}", testing::TempDir(), getpid());
  std::ofstream(rows) << "1 1:1\n0 2:1\n1 1:2\n0 2:2\n1\n0\n1\n0\n1\n0\n";
  SlipProgram linear(run + std::vector<std::string>{"--task", "libsvm:" + rows});
  EXPECT_EQ(linear.wait().error, "");
  std::filesystem::remove(rows);
  EXPECT_THAT(options_of(linear),
              testing::IsSupersetOf({"model=svm", "partition=iid", "batch=32"}));
}

TEST(SlipTrain, RecordsMoreParametersThanAMessageOfTheRendezvousHolds) {
  constexpr std::size_t count = 100'000, iterations = 10;  // 20 MB of text each
  SlipProgram slip({"train", "--workers", "2", "--task", fmt::format("consensus:dim={}", count),
                    "--iterations", std::to_string(iterations), "--evaluate-every", "0",
                    "--record-parameters", "--report", "report.json"});
  EXPECT_EQ(slip.wait(4 * hang).error, "");
  const Report report = read_report(slip.folder() / "report.json");
  ASSERT_TRUE(report.parameters.has_value());
  ASSERT_THAT(*report.parameters, SizeIs(iterations));
  for (const auto& workers : *report.parameters) {
    ASSERT_THAT(workers, SizeIs(2));
    ASSERT_THAT(workers[0], SizeIs(count));
    // Two neighbours are at one point after the first average.
    EXPECT_TRUE(workers[0] == workers[1]);
  }
}

TEST(World, IsOfOneWorkerWithoutALauncher) {
  for (const char* variable : {"SLIP_RENDEZVOUS", "SLIP_RANK", "SLIP_SIZE"}) unsetenv(variable);
  for (const std::string& protocol : protocols) {
    World world = World::connect();
    EXPECT_EQ(world.rank(), 0);
    EXPECT_EQ(world.size(), 1);
    double x = 4;
    Trainer trainer(world, {{&x, 1, Dtype::float64}}, make_protocol_config(protocol),
                    {.learning_rate = 0.2, .iterations = 100});
    while (trainer.running()) {
      trainer.gradient().as<double>()[0] = x;
      ASSERT_TRUE(trainer.step(trainer.gradient()).ok());
    }
    trainer.average();
    EXPECT_NEAR(x, 0, 1e-6);
  }
}

/// One simulated run that somebody stops, after a time or at a target; returns where each worker
/// was at the end.
std::vector<Iteration> stopped_run(std::uint64_t seed) {
  Random random(seed);
  const int workers = 2 + static_cast<int>(random.below(7));
  const std::string& protocol = protocols[random.below(protocols.size())];
  const char* const graphs[] = {"ring", "complete", "chain", "star"};
  const std::string graph = graphs[random.below(4)];
  const bool by_time = random.below(2) == 0;
  const int who = static_cast<int>(random.below(static_cast<std::uint64_t>(workers)));
  const Duration limit = 1ms * (1 + static_cast<int>(random.below(60)));
  std::vector<Iteration> ends(static_cast<std::size_t>(workers));
  LaunchOptions launched;
  launched.kind = LaunchKind::simulated;
  launch(
      workers,
      [&](World& world) {
        TrainerOptions options;
        options.graph = graph;
        options.iterations = 100'000;
        options.learning_rate = 0.1;
        options.heterogeneity =
            Heterogeneity({"1ms,jitter=0.9", {"random,x=6,p=1/n"}, "", workers, seed});
        if (by_time) {
          if (world.rank() == who) options.time_limit = limit;
        } else {
          options.evaluate_every = 1 + seed % 7;
          options.evaluate = [](ConstVectorView mean) {
            return Evaluation{std::abs(mean.as<double>()[0] - 1), {}};
          };
          options.target = Target{"loss", 0.05};
        }
        double x = 8;
        Trainer trainer(world, {{&x, 1, Dtype::float64}}, make_protocol_config(protocol), options);
        while (trainer.running()) {
          world.compute([&] {
            trainer.gradient().as<double>()[0] = trainer.parameters().as<double>()[0] - 1;
          });
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        trainer.average();
        ends[static_cast<std::size_t>(world.rank())] = trainer.iterations_done();
      },
      launched);
  return ends;
}

TEST(AgreedStop, IsAtOneIterationAThousandTimesOutOfAThousand) {
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const std::vector<Iteration> ends = stopped_run(seed);
    ASSERT_THAT(ends, Each(ends.front())) << "seed " << seed;
    ASSERT_GT(ends.front(), 0U) << "seed " << seed;
    ASSERT_LT(ends.front(), 100'000U) << "seed " << seed;
  }
}

}  // namespace
}  // namespace slip
