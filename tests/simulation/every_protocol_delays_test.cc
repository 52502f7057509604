// Every protocol on random delays, links, slow workers and ends.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "conformance.h"
#include "consensus.h"

namespace slip {
namespace {

using testing::for_seeds;

class EveryProtocol : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryProtocol, ends_whatever_the_delays) {
  for_seeds(50, [](std::uint64_t seed) {
    Random random(seed);
    consensus::Scenario s = consensus::random_scenario(random, seed, LaunchKind::simulated);
    s.protocol = [] { return make_protocol_config(GetParam()); };
    const consensus::Outcome outcome = run(s);
    const bool free_running = make_protocol_config(GetParam())->free_running();
    for (const Iteration done : outcome.done) {
      EXPECT_GT(done, 0U);
      EXPECT_TRUE(free_running || done == outcome.done.front());
    }
    for (const auto& x : outcome.ends) {
      for (const double value : x) EXPECT_LE(std::abs(value), 100) << "without gradients";
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Protocols, EveryProtocol,
    [] {
      std::vector<std::string> names;
      for (const auto name : protocol_names()) names.emplace_back(name);
      return ::testing::ValuesIn(names);
    }(),
    [](const auto& info) { return info.param; });

}  // namespace
}  // namespace slip
