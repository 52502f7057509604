// `slip train` learns, and carries many workers on few processors.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "slip_program.h"
#include "slipstream/trainer/report.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::Each;
using testing::SizeIs;

/// These runs compute in earnest, and may have one processor for all.
constexpr Duration patience = 240s;

Report report_of(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "train");
  arguments.insert(arguments.end(), {"--report", "report.json"});
  SlipProgram slip(arguments);
  const Outcome outcome = slip.wait(patience);
  if (!outcome.end.ok()) throw std::runtime_error(outcome.error);
  return read_report(slip.folder() / "report.json");
}

class Mnist : public testing::TestWithParam<std::string> {};

TEST_P(Mnist, IsLearnedByEightWorkers) {
  const char* folder = std::getenv("SLIP_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "SLIP_TEST_DATA does not name a folder with mnist/";
  if (run_slip({"info"}).output.find("no: slip train has no models of images") !=
      std::string::npos) {
    GTEST_SKIP() << "this build has no LibTorch (package libtorch-dev)";
  }
  const Report report =
      report_of({"--protocol", GetParam(), "--workers", "8", "--task",
                 std::string("mnist:") + folder + "/mnist", "--model", "mlp", "--epochs", "10",
                 "--evaluate-every", "50", "--target", "accuracy=0.97"});
  ASSERT_TRUE(report.target.has_value());
  EXPECT_TRUE(report.target->reached_at_seconds.has_value())
      << "accuracy " << report.final.accuracy.value_or(0) << " after " << report.iterations.at(0)
      << " iterations";
}

INSTANTIATE_TEST_SUITE_P(SlipTrain, Mnist, testing::Values("hop", "all_reduce"),
                         [](const auto& info) { return info.param; });

TEST(SlipTrain, ALinearModelOfA9aIsLearnedByEightSimulatedWorkers) {
  const char* folder = std::getenv("SLIP_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "SLIP_TEST_DATA does not name a folder with libsvm/";
  for (const char* model : {"svm", "logistic"}) {
    const Report report =
        report_of({"--transport", "sim", "--workers", "8", "--iterations", "500", "--task",
                   std::string("libsvm:") + folder + "/libsvm/a9a.gz", "--model", model});
    EXPECT_GE(report.final.accuracy.value_or(0), 0.84) << model;
  }
}

// The gradients are computed by a pool of threads, in whatever order they come.
TEST(SlipTrain, OneSeedIsOneHistoryOf64WorkersWithRealGradients) {
  if (!SLIP_HAVE_TORCH) GTEST_SKIP() << "this build has no LibTorch (package libtorch-dev)";
  const auto run = [](const std::string& seed) {
    return to_json(report_of({"--transport",  "sim",
                              "--workers",    "64",
                              "--task",       "digits",
                              "--model",      "mlp",
                              "--graph",      "ring-based",
                              "--set",        "backup=1",
                              "--compute",    "20ms,jitter=0.2",
                              "--slow",       "random,x=6,p=1/n",
                              "--iterations", "15",
                              "--seed",       seed}));
  };
  const std::string first = run("1");
  EXPECT_EQ(first, run("1"));
  EXPECT_NE(first, run("2"));
}

TEST(SlipTrain, SixteenWorkersShareFewProcessors) {
  const auto run = [](const std::string& transport) {
    Report report =
        report_of({"--transport", transport, "--workers", "16", "--task", "consensus:dim=100000",
                   "--compute", "50ms,jitter=0.05", "--iterations", "40"});
    EXPECT_THAT(report.iterations, SizeIs(16)) << transport;
    EXPECT_THAT(report.iterations, Each(40U)) << transport;
    return report;
  };
  const Report real = run("shm");
  const Report simulated = run("sim");
  double cpu_seconds = 0;
  for (const Report::Worker& worker : real.per_worker) {
    ASSERT_TRUE(worker.cpu_seconds.has_value()) << "rank " << worker.rank;
    cpu_seconds += *worker.cpu_seconds;
  }
  ASSERT_TRUE(real.seconds_per_iteration().has_value());
  ASSERT_TRUE(simulated.seconds_per_iteration().has_value());
  std::cout << "seconds per iteration, shm over sim: "
            << *real.seconds_per_iteration() / *simulated.seconds_per_iteration()
            << "; processors in use on shm: " << cpu_seconds / real.seconds << "\n";
}

}  // namespace
}  // namespace slip
