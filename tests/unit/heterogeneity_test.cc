#include "slipstream/trainer/heterogeneity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "slipstream/base/error.h"
#include "slipstream/trainer/quantity.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    return error.what();
  }
  return "no error";
}

Heterogeneity make(std::string compute, std::vector<std::string> slow, std::uint64_t seed = 1) {
  return Heterogeneity({.compute = std::move(compute),
                        .slow = std::move(slow),
                        .drop = {},
                        .workers = 16,
                        .seed = seed});
}

TEST(Heterogeneity, WithoutJitterAnIterationLastsExactlyItsTime) {
  const Heterogeneity plain = make("10ms", {});
  EXPECT_TRUE(plain.has_compute());
  EXPECT_EQ(plain.compute_time(3, 17), 10ms);
  EXPECT_FALSE(Heterogeneity().has_compute());
  EXPECT_EQ(Heterogeneity().compute_time(0, 0), 0ns);
}

TEST(Heterogeneity, JitterStaysInItsBoundsAndKeepsTheMean) {
  const Heterogeneity jittered = make("10ms,jitter=0.05", {});
  double sum = 0;
  bool varies = false;
  for (Iteration k = 0; k < 10000; ++k) {
    const Duration time = jittered.compute_time(2, k);
    ASSERT_GE(time, 9500us);
    ASSERT_LE(time, 10500us);
    varies |= time != jittered.compute_time(2, 0);
    sum += to_seconds(time);
  }
  EXPECT_TRUE(varies);
  EXPECT_NEAR(sum / 10000, 0.010, 0.00002);
}

TEST(Heterogeneity, SlowsTheNamedRankOnly) {
  const Heterogeneity slow = make("10ms", {"rank=3,x=4"});
  EXPECT_EQ(slow.compute_time(3, 5), 40ms);
  EXPECT_EQ(slow.compute_time(2, 5), 10ms);
}

TEST(Heterogeneity, RandomSlowdownsHitEachIterationWithTheirProbability) {
  const Heterogeneity slow = make("10ms", {"random,x=6,p=1/n"});
  int hits = 0;
  for (int rank = 0; rank < 16; ++rank) {
    for (Iteration k = 0; k < 4000; ++k) {
      const Duration time = slow.compute_time(rank, k);
      ASSERT_TRUE(time == 10ms || time == 60ms);
      hits += time == 60ms;
    }
  }
  EXPECT_NEAR(hits / 64000.0, 1.0 / 16, 0.005);
}

TEST(Heterogeneity, FactorsThatMeetMultiply) {
  const Heterogeneity slow = make("10ms", {"rank=3,x=4", "rank=3,x=2", "random,x=5,p=1"});
  EXPECT_EQ(slow.compute_time(3, 0), 400ms);
  EXPECT_EQ(slow.compute_time(0, 0), 50ms);
}

TEST(Heterogeneity, DrawsAreAPureFunctionOfSeedRankAndIteration) {
  const std::vector<std::string> rules{"random,x=6,p=0.5"};
  const Heterogeneity a = make("10ms,jitter=0.1", rules, 7);
  const Heterogeneity b = make("10ms,jitter=0.1", rules, 7);
  const Heterogeneity other = make("10ms,jitter=0.1", rules, 8);
  int differs = 0;
  for (Iteration k = 100; k-- > 0;) {  // another order than a's below
    differs += b.compute_time(4, k) != other.compute_time(4, k);
  }
  EXPECT_GT(differs, 90);
  for (Iteration k = 0; k < 100; ++k) EXPECT_EQ(a.compute_time(4, k), b.compute_time(4, k));
}

TEST(Heterogeneity, EnormousFactorsDoNotOverflow) {
  const Heterogeneity slow = make("1000000000s", {"rank=1,x=1000000", "rank=1,x=1000000"});
  EXPECT_GT(slow.compute_time(1, 0), 100 * 365 * 24h);
}

TEST(Heterogeneity, DropsTheShareOfMessagesThatWasAskedFor) {
  const Heterogeneity lossy({.compute = {}, .slow = {}, .drop = "p=0.1", .workers = 4, .seed = 1});
  int lost = 0;
  for (Iteration k = 0; k < 20000; ++k) lost += lossy.drops(1, 2, k);
  EXPECT_NEAR(lost / 20000.0, 0.1, 0.01);
  int same = 0;
  for (Iteration k = 0; k < 1000; ++k) {
    same += lossy.drops(1, 2, k, 0) == lossy.drops(1, 2, k, 1);
    EXPECT_FALSE(Heterogeneity().drops(1, 2, k));
  }
  EXPECT_LT(same, 1000);
}

TEST(Heterogeneity, RefusesWithOneLineThatNamesOptionAndWhatIsAllowed) {
  EXPECT_THAT(message_of([] { make("", {"rank=3,x=4"}); }), HasSubstr("--slow needs --compute"));
  EXPECT_THAT(message_of([] { make("ten", {}); }), HasSubstr("--compute: 'ten' is not a duration"));
  EXPECT_THAT(message_of([] { make("0ms", {}); }), HasSubstr("must be above 0"));
  EXPECT_THAT(message_of([] { make("1ms,jitter=1", {}); }), HasSubstr("jitter must be"));
  EXPECT_THAT(message_of([] { make("1ms,jiter=0.1", {}); }), HasSubstr("'jiter' has no place"));
  EXPECT_THAT(message_of([] { make("1ms", {"rank=16,x=4"}); }), HasSubstr("ranks are 0 to 15"));
  EXPECT_THAT(message_of([] { make("1ms", {"rank=1.5,x=4"}); }), HasSubstr("rank 1.5"));
  EXPECT_THAT(message_of([] { make("1ms", {"rank=1"}); }), HasSubstr("'x' is missing"));
  EXPECT_THAT(message_of([] { make("1ms", {"rank=1,x=0"}); }), HasSubstr("x must be above 0"));
  EXPECT_THAT(message_of([] { make("1ms", {"rank=1,x=nan"}); }),
              HasSubstr("'nan' is not a number"));
  EXPECT_THAT(message_of([] { make("1ms", {"random,x=6"}); }), HasSubstr("'p' is missing"));
  EXPECT_THAT(message_of([] { make("1ms", {"random,x=6,p=2"}); }), HasSubstr("0 to 1"));
  EXPECT_THAT(message_of([] { make("1ms", {"random,x=6,p=1/0"}); }), HasSubstr("0 to 1"));
  EXPECT_THAT(message_of([] { make("1ms", {"random,x=6,p=1/8,rank=2"}); }),
              HasSubstr("--slow 'random,x=6,p=1/8,rank=2': 'rank' has no place here"));
}

TEST(Quantity, DurationsTakeTheirUnits) {
  EXPECT_EQ(parse_duration("100ns", "x"), 100ns);
  EXPECT_EQ(parse_duration("10us", "x"), 10us);
  EXPECT_EQ(parse_duration("2.5ms", "x"), 2500us);
  EXPECT_EQ(parse_duration("3s", "x"), 3s);
  for (const char* bad : {"", "10", "ms", "-1ms", "10 ms", "10m", "infs", "1e300s"}) {
    EXPECT_THAT(message_of([&] { parse_duration(bad, "--x"); }), HasSubstr("--x: "));
  }
}

TEST(Quantity, ProbabilitiesAreNumbersOrFractions) {
  EXPECT_EQ(parse_probability("0.125", "p"), 0.125);
  EXPECT_EQ(parse_probability("1/8", "p"), 0.125);
  EXPECT_EQ(parse_probability("1/n", "p", 4), 0.25);
  EXPECT_THAT(message_of([] { parse_probability("1/n", "p"); }), HasSubstr("'1/n'"));
}

TEST(Link, TakesRatesInDecimalBitsAndLatency) {
  const sim::Link link = parse_link("rate=60mbit,latency=1ms", "--link");
  EXPECT_DOUBLE_EQ(link.bytes_per_second, 7.5e6);
  EXPECT_EQ(link.latency, 1ms);
  EXPECT_DOUBLE_EQ(parse_link("rate=10gbit", "--link").bytes_per_second, 1.25e9);
  EXPECT_EQ(parse_link("latency=2us", "--link").bytes_per_second, 0) << "unlimited";
  EXPECT_THAT(message_of([] { parse_link("rate=60MB", "--inner-link"); }),
              HasSubstr("--inner-link rate=60MB, rate: '60MB' is not a rate"));
  EXPECT_THAT(message_of([] { parse_link("rate=0mbit", "--link"); }), HasSubstr("not a rate"));
  EXPECT_THAT(message_of([] { parse_link("", "--link"); }), HasSubstr("allowed is rate="));
}

class LinksFile : public testing::Test {
 protected:
  ~LinksFile() override { std::remove(path.c_str()); }
  const std::string& write(const std::string& content) const {
    std::ofstream(path) << content;
    return path;
  }
  /// Of three hosts' links.
  std::string refusal(const std::string& content) const {
    return message_of([&] { read_links(write(content), 3); });
  }

  const std::string path = testing::TempDir() + "slip-links-" + std::to_string(getpid());
};

TEST_F(LinksFile, HasALineForEachPairOfHosts) {
  const auto links = read_links(write("# from to link\n"
                                      "0 1 rate=60mbit,latency=1ms\n"
                                      "\n"
                                      "  1 0 latency=2ms  # the way back\n"
                                      "2\t2 rate=8kbit"),
                                3);
  ASSERT_EQ(links.size(), 3u);
  EXPECT_EQ(links[0].from, 0);
  EXPECT_EQ(links[0].to, 1);
  EXPECT_EQ(links[0].link.bytes_per_second, 7.5e6);
  EXPECT_EQ(links[0].link.latency, 1ms);
  EXPECT_EQ(links[1].from, 1);
  EXPECT_EQ(links[1].to, 0);
  EXPECT_EQ(links[1].link.bytes_per_second, 0);
  EXPECT_EQ(links[1].link.latency, 2ms);
  EXPECT_EQ(links[2].from, 2);
  EXPECT_EQ(links[2].to, 2);
  EXPECT_EQ(links[2].link.bytes_per_second, 1000);
}

TEST_F(LinksFile, MayHoldNoLink) { EXPECT_TRUE(read_links(write("# none\n"), 3).empty()); }

TEST_F(LinksFile, EveryProblemIsNamedWithFileAndLine) {
  const auto names = [&](int line, const char* what) {
    return testing::AllOf(HasSubstr(path), HasSubstr("line " + std::to_string(line) + ": "),
                          HasSubstr(what));
  };
  EXPECT_THAT(refusal("0 3 rate=1mbit\n"), names(1, "'3' is not a host; hosts are 0 to 2"));
  EXPECT_THAT(refusal("\n-1 0 rate=1mbit\n"), names(2, "'-1' is not a host"));
  EXPECT_THAT(refusal("0x 1 rate=1mbit\n"), names(1, "'0x' is not a host"));
  EXPECT_THAT(refusal("99999999999 1 rate=1mbit\n"), names(1, "is not a host"));
  EXPECT_THAT(refusal("# hosts\n0 1\n"), names(2, "2 fields"));
  EXPECT_THAT(refusal("0 1 rate=1mbit latency=1ms\n"), names(1, "4 fields"));
  EXPECT_THAT(refusal("0 1 rate=fast\n"), names(1, "'fast' is not a rate"));
  EXPECT_THAT(refusal("0 1 rate=0mbit\n"), names(1, "'0mbit' is not a rate"));
  EXPECT_THAT(refusal("0 1 speed=1mbit\n"), names(1, "'speed' has no place here"));
  EXPECT_THAT(refusal("0 1 latency=1ms\n1 0 latency=1ms\n0 1 latency=2ms\n"),
              names(3, "0 -> 1 stands on line 1 already"));
}

TEST_F(LinksFile, ThatIsNotThereIsRefused) {
  EXPECT_THAT(message_of([&] { read_links(path + "-none", 3); }),
              testing::AllOf(HasSubstr("--links"), HasSubstr(path), HasSubstr("no such file")));
  EXPECT_THAT(message_of([&] { read_links(testing::TempDir(), 3); }), HasSubstr("no such file"));
}

TEST(Link, SlowLinkNamesARankAndAFactor) {
  const auto slow = parse_slow_link("rank=3,x=5", 4);
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_EQ(slow[0].rank, 3);
  EXPECT_EQ(slow[0].factor, 5);
  EXPECT_THAT(message_of([] { parse_slow_link("rank=4,x=5", 4); }), HasSubstr("ranks are 0 to 3"));
}

TEST(Link, SlowLinksOfANumberOfWorkersAreSpreadEvenly) {
  std::vector<int> ranks;
  for (const SlowLink& slow : parse_slow_link("count=4,x=5", 10)) {
    ranks.push_back(slow.rank);
    EXPECT_EQ(slow.factor, 5);
  }
  EXPECT_THAT(ranks, testing::ElementsAre(0, 2, 5, 7));
  EXPECT_TRUE(parse_slow_link("count=0,x=5", 10).empty());
  EXPECT_EQ(parse_slow_link("count=10,x=5", 10).size(), 10u);
  for (const char* text : {"count=11,x=5", "count=-1,x=5", "count=1.5,x=5"}) {
    EXPECT_THAT(message_of([&] { parse_slow_link(text, 10); }), HasSubstr("0 to 10")) << text;
  }
}

}  // namespace
}  // namespace slip
