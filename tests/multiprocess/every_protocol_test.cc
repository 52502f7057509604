// What every protocol shall do, as users see it: a new one is tested here without a line.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "slip_program.h"
#include "slipstream/trainer/files.h"
#include "slipstream/trainer/protocol.h"
#include "slipstream/trainer/report.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::Each;
using testing::HasSubstr;
using testing::SizeIs;

class EveryProtocol : public testing::TestWithParam<std::string> {
 protected:
  /// The report of `slip train` with four workers and these options, and its text.
  Report train(std::vector<std::string> options) {
    options.insert(options.begin(), {"train", "--protocol", GetParam(), "--workers", "4", "--quiet",
                                     "--report", "report.json"});
    SlipProgram slip(options);
    const Outcome outcome = slip.wait(120s);
    if (!outcome.end.ok()) throw std::runtime_error(outcome.error);
    text_ = read_file(slip.folder() / "report.json");
    return read_report(slip.folder() / "report.json");
  }

  std::string text_;
};

TEST_P(EveryProtocol, ConvergesOnQuadraticInProcesses) {
  // Where nobody waits, a worker that the machine stops may fall behind by any number of
  // iterations: such a run ends when all have learned.
  const bool free_running = make_protocol_config(GetParam())->free_running();
  std::vector<std::string> options = {"--transport", "shm", "--task",    "quadratic:zeta2=0.01",
                                      "--lr",        "0.1", "--compute", "1ms,jitter=0.2"};
  if (free_running) {
    options.insert(options.end(),
                   {"--iterations", "1000000", "--seconds", "60", "--target", "loss=0.01"});
  } else {
    options.insert(options.end(), {"--iterations", "400"});
  }
  const Report report = train(options);
  ASSERT_TRUE(report.final.loss.has_value());
  if (free_running) {
    ASSERT_TRUE(report.target.has_value());
    EXPECT_TRUE(report.target->reached_at_seconds.has_value()) << "loss " << *report.final.loss;
  } else {
    EXPECT_LT(*report.final.loss, 0.02) << "about 30 at the start";
  }

  for (const char* field : {"slipstream", "protocol", "transport", "workers", "seed", "options",
                            "seconds", "seconds_per_iteration", "iterations", "final", "target",
                            "max_gap_seen", "updates", "bytes_sent", "per_worker", "curve"}) {
    EXPECT_THAT(text_, HasSubstr("\"" + std::string(field) + "\":"));
  }
  EXPECT_EQ(report.protocol, GetParam());
  EXPECT_THAT(report.iterations, SizeIs(4));
  EXPECT_THAT(report.iterations, Each(testing::Gt(0U)));
  EXPECT_TRUE(report.max_gap_seen.has_value());
  EXPECT_GT(report.bytes_sent, 0U);
  ASSERT_THAT(report.per_worker, SizeIs(4));
  for (const Report::Worker& worker : report.per_worker) {
    EXPECT_GT(worker.compute_seconds, 0);
    EXPECT_TRUE(worker.cpu_seconds.has_value());
  }
}

TEST_P(EveryProtocol, ContractsOnConsensus) {
  if (GetParam() == "all_reduce" || GetParam() == "parameter_server") {
    GTEST_SKIP() << "it averages gradients: models that begin alike stay alike, and others apart";
  }
  const Report report = train({"--transport", "sim", "--task", "consensus:dim=8", "--compute",
                               "1ms,jitter=0.2", "--iterations", "200", "--record-parameters"});
  ASSERT_TRUE(report.parameters.has_value());
  const auto& models = report.parameters->back();
  ASSERT_THAT(models, SizeIs(4));
  for (const auto& model : models) {
    for (std::size_t i = 0; i < model.size(); ++i) {
      EXPECT_NEAR(model[i], models[0][i], 0.01) << "apart by up to 2 at the start";
    }
  }
}

TEST_P(EveryProtocol, GoesOnOverSlowAndUnevenLinks) {
  for (const char* seed : {"1", "2", "3"}) {
    const Report report = train({"--transport",  "sim",
                                 "--task",       "quadratic:zeta2=0.01",
                                 "--lr",         "0.1",
                                 "--compute",    "1ms,jitter=0.5",
                                 "--slow",       "random,x=6,p=1/n",
                                 "--hosts",      "2",
                                 "--link",       "rate=1mbit,latency=2ms",
                                 "--inner-link", "latency=10us",
                                 "--slow-link",  "rank=1,x=3",
                                 "--iterations", "400",
                                 "--seed",       seed});
    EXPECT_LT(report.final.loss.value_or(1e9), 0.5);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Slip, EveryProtocol,
    [] {
      std::vector<std::string> names;
      for (const auto name : protocol_names()) names.emplace_back(name);
      return testing::ValuesIn(names);
    }(),
    [](const auto& info) { return info.param; });

TEST(SlipCompare, ComparesAllProtocolsOnDigits) {
  if (!SLIP_HAVE_TORCH) GTEST_SKIP() << "this build has no LibTorch (package libtorch-dev)";
  SlipProgram slip({"compare", "--protocols", "all", "--task", "digits", "--workers", "4",
                    "--transport", "sim", "--compute", "10ms,jitter=0.1", "--iterations", "20"});
  const Outcome outcome = slip.wait(240s);
  ASSERT_TRUE(outcome.end.ok()) << outcome.error;
  for (const auto name : protocol_names()) {
    EXPECT_THAT(outcome.output, HasSubstr("\n" + std::string(name) + " "));
  }
}

}  // namespace
}  // namespace slip
