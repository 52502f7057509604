// Protocols in which nobody waits, between processes: they learn, and leave complete reports.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "slip_program.h"
#include "slipstream/trainer/report.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::Each;
using testing::Gt;
using testing::SizeIs;
using Words = std::vector<std::string>;

struct Case {
  std::string name;
  Words protocol;
};

class WaitFree : public testing::TestWithParam<std::tuple<Case, std::string>> {};

TEST_P(WaitFree, LearnsBetweenProcesses) {
  const auto& [what, transport] = GetParam();
  if (transport == "ucx" && !SLIP_HAVE_UCX) GTEST_SKIP() << "this build has no UCX";
  // A worker that the machine stops may fall behind by any number of iterations: the run ends when
  // all have learned.
  Words arguments{
      "train", "--transport",      transport,     "--task",       "quadratic:dim=50", "--lr",
      "0.3",   "--workers",        "4",           "--iterations", "1000000",          "--seconds",
      "60",    "--evaluate-every", "5",           "--target",     "loss=0.03",        "--compute",
      "2ms",   "--report",         "report.json", "--slow",       "rank=1,x=3",       "--protocol"};
  arguments.insert(arguments.end(), what.protocol.begin(), what.protocol.end());
  SlipProgram slip(arguments);
  const Outcome outcome = slip.wait(120s);
  ASSERT_TRUE(outcome.end.ok()) << outcome.error;
  const Report report = read_report(slip.folder() / "report.json");
  EXPECT_EQ(report.transport, transport);
  EXPECT_THAT(report.iterations, Each(Gt(0U)));
  EXPECT_THAT(report.per_worker, SizeIs(4));
  EXPECT_GT(report.updates.used, 10U);
  EXPECT_LE(report.updates.used + report.updates.late, report.updates.sent);
  EXPECT_GE(report.bytes_sent, report.updates.sent * 8);
  ASSERT_TRUE(report.target.has_value());
  EXPECT_TRUE(report.target->reached_at_seconds.has_value())
      << "loss " << report.final.loss.value() << ", about 30 at the start";
}

INSTANTIATE_TEST_SUITE_P(
    SlipTrain, WaitFree,
    testing::Combine(testing::Values(Case{"div_share", {"div_share"}},
                                     Case{"div_share_lossy", {"div_share", "--drop", "p=0.1"}},
                                     Case{"div_share_queue",
                                          {"div_share", "--set", "flush=false", "--set",
                                           "fraction=1"}},
                                     Case{"swift", {"swift"}},
                                     Case{"ad_psgd_paper", {"ad_psgd", "--set", "mode=paper"}}),
                     testing::Values("shm", "ucx")),
    [](const auto& info) { return std::get<0>(info.param).name + "_" + std::get<1>(info.param); });

}  // namespace
}  // namespace slip
