// `slip train --save` and `--resume`: every worker goes on with its own momentum.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "slip_program.h"
#include "slipstream/trainer/checkpoint.h"
#include "slipstream/trainer/report.h"

namespace slip {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr int workers = 4;
constexpr double rate = 0.05;
constexpr double momentum = 0.9;

double value(const Checkpoint::Vector& vector) {
  double x = 0;
  EXPECT_EQ(vector.size(), sizeof x);
  std::memcpy(&x, vector.data(), sizeof x);
  return x;
}

/// Worker i descends f_i(x) = (x - i)^2 / 2, so a velocity is that of the gradient x - i.
double next_velocity(double velocity, double x, int rank) { return momentum * velocity + x - rank; }

class Resume : public testing::TestWithParam<std::string> {
 protected:
  Resume() : file_(fmt::format("{}slip-saved-{}", testing::TempDir(), getpid())) {}
  ~Resume() override { std::filesystem::remove(file_); }

  /// A run of `more` arguments; what it wrote to stderr goes to `error`.
  Report run(int how_many, int iterations, std::vector<std::string> more,
             std::string* error) const {
    std::vector<std::string> arguments = {"train",
                                          "--transport",
                                          GetParam(),
                                          "--task",
                                          "targets",
                                          "--protocol",
                                          "d_psgd",
                                          "--graph",
                                          "complete",
                                          "--workers",
                                          std::to_string(how_many),
                                          "--lr",
                                          std::to_string(rate),
                                          "--momentum",
                                          std::to_string(momentum),
                                          "--iterations",
                                          std::to_string(iterations),
                                          "--record-parameters",
                                          "--report",
                                          "report.json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    SlipProgram slip(arguments);
    const Outcome outcome = slip.wait();
    EXPECT_TRUE(outcome.end.ok()) << outcome.error;
    *error = outcome.error;
    return read_report(slip.folder() / "report.json");
  }

  const std::string file_;
};

TEST_P(Resume, EveryWorkerGoesOnWithItsOwnMomentum) {
  std::string error;
  const Report before = run(workers, 20, {"--save", file_}, &error);
  EXPECT_EQ(error, "");
  const Checkpoint saved = read_checkpoint(file_);
  EXPECT_EQ(saved.iteration, 20u);
  EXPECT_EQ(saved.workers, workers);
  ASSERT_THAT(saved.velocities, SizeIs(workers));
  double mean = 0;
  for (int rank = 0; rank < workers; ++rank) {
    const auto at = static_cast<std::size_t>(rank);
    double velocity = 0;
    double x = 0;
    for (const auto& iteration : *before.parameters) {
      velocity = next_velocity(velocity, x, rank);
      x = iteration[at][0];
    }
    EXPECT_NEAR(value(saved.velocities[at]), velocity, 1e-12) << "rank " << rank;
    mean += x / workers;
  }
  EXPECT_NEAR(value(saved.parameters), mean, 1e-12);

  const Report after = run(workers, 21, {"--resume", file_}, &error);
  EXPECT_EQ(error, "");
  EXPECT_EQ(after.resumed_at, 20u);
  EXPECT_DOUBLE_EQ(after.seconds_per_iteration().value(), after.seconds) << "one in this run";
  EXPECT_DOUBLE_EQ(after.median_seconds_per_iteration().value(), after.seconds);
  ASSERT_TRUE(after.parameters.has_value());
  ASSERT_THAT(*after.parameters, SizeIs(1));
  for (int rank = 0; rank < workers; ++rank) {
    const auto at = static_cast<std::size_t>(rank);
    const double velocity = next_velocity(value(saved.velocities[at]), mean, rank);
    EXPECT_NEAR((*after.parameters)[0][at][0], mean - rate * velocity, 1e-12) << "rank " << rank;
  }
}

TEST_P(Resume, AWorldOfAnotherSizeBeginsWithoutMomentumAndSaysSo) {
  std::string error;
  run(workers, 20, {"--save", file_}, &error);
  const double mean = value(read_checkpoint(file_).parameters);
  const Report after = run(3, 21, {"--resume", file_}, &error);
  EXPECT_THAT(error, HasSubstr(fmt::format("--resume {}: saved by 4 workers", file_)));
  EXPECT_EQ(error.find('\n'), error.size() - 1) << error;
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_NEAR((*after.parameters)[0][static_cast<std::size_t>(rank)][0],
                mean - rate * (mean - rank), 1e-12);
  }
}

INSTANTIATE_TEST_SUITE_P(SlipTrain, Resume, testing::Values("shm", "threads", "sim"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace slip
