#include "slipstream/perf/perf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/perf/output.h"
#include "slipstream/perf/sizes.h"
#include "slipstream/perf/statistics.h"
#include "slipstream/trainer/files.h"

namespace slip::perf {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(PerfStatistics, PercentilesAreSamplesByNearestRank) {
  std::vector<double> samples;
  for (int i = 1000; i >= 1; --i) samples.push_back(i);
  const Statistics s = summarise(samples);
  EXPECT_EQ(s.min, 1);
  EXPECT_EQ(s.p50, 500);
  EXPECT_EQ(s.p99, 990);
  EXPECT_EQ(s.p999, 999);
  EXPECT_EQ(s.max, 1000);
  EXPECT_EQ(s.avg, 500.5);
}

TEST(PerfStatistics, DeviationIsThatOfASample) {
  const Statistics s = summarise({2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_EQ(s.avg, 5);
  EXPECT_THAT(s.stdev, DoubleNear(2.138089935, 1e-9));  // sqrt(32 / 7)
}

TEST(PerfStatistics, OneSampleIsAllOfThemWithoutDeviation) {
  const Statistics s = summarise({3});
  EXPECT_EQ(s.min, 3);
  EXPECT_EQ(s.p999, 3);
  EXPECT_EQ(s.stdev, 0);
}

TEST(PerfStatistics, NoSamplesAreZeros) { EXPECT_EQ(summarise({}).max, 0); }

TEST(PerfSizes, SuffixesAreBinary) {
  EXPECT_EQ(parse_size("8", "-b"), 8u);
  EXPECT_EQ(parse_size("64K", "-b"), 65536u);
  EXPECT_EQ(parse_size("3m", "-b"), 3u << 20);
  EXPECT_EQ(parse_size("64G", "-b"), std::size_t{64} << 30);
}

TEST(PerfSizes, WhatIsNoSizeIsRefusedByName) {
  for (const char* text :
       {"", "0", "-1", "K", "4T", "4KB", "1.5M", "65G", "18446744073709551616"}) {
    EXPECT_EQ(error_of([&] { parse_size(text, "-e"); }),
              std::string("-e is '") + text + "'; allowed are bytes from 1 to 64G, with K, M or G");
  }
}

TEST(PerfSizes, GrowByTheFactorUpToTheLast) {
  EXPECT_THAT(sizes_between(8, 100, 3), ElementsAre(8, 24, 72));
  EXPECT_THAT(sizes_between(8, 8, 2), ElementsAre(8));
}

TEST(PerfSizes, NothingToMeasureIsRefused) {
  EXPECT_THAT(error_of([] { sizes_between(16, 8, 2); }), StartsWith("no size from 16 to 8"));
  EXPECT_THAT(error_of([] { sizes_between(8, 16, 1); }), HasSubstr("a factor of 1"));
}

Row example() {
  Row row;
  row.size = 64;
  row.iterations = 10;
  row.time = {1, 2, 3, 4, 5, 2.5, 0.5};
  row.bw = 0.0256;
  row.rate = 0.4;
  row.wrong = 0;
  return row;
}

TEST(PerfOutput, JsonHoldsEnvironmentAndRowsByColumn) {
  Row unchecked = example();
  unchecked.wrong.reset();
  const auto json = nlohmann::json::parse(to_json({{"test", "put"}}, {example(), unchecked}));
  EXPECT_EQ(json["environment"]["test"], "put");
  ASSERT_EQ(json["rows"].size(), 2u);
  const auto expected = nlohmann::json::parse(
      R"({"size": 64, "iterations": 10, "min": 1.0, "p50": 2.0, "p99": 3.0, "p99.9": 4.0,
          "max": 5.0, "avg": 2.5, "stdev": 0.5, "bw": 0.0256, "rate": 0.4, "wrong": 0})");
  EXPECT_EQ(json["rows"][0], expected);
  EXPECT_TRUE(json["rows"][1]["wrong"].is_null());
}

TEST(PerfOutput, CsvHasAHeaderAndALinePerRow) {
  EXPECT_EQ(to_csv({example()}),
            "size,iterations,min,p50,p99,p99.9,max,avg,stdev,bw,rate,wrong\n"
            "64,10,1.0,2.0,3.0,4.0,5.0,2.5,0.5,0.0256,0.4,0\n");
}

TEST(PerfOutput, OnlyRowsAreNotComments) {
  EXPECT_EQ(comment_lines({{"transport", "shm"}}), "# transport: shm\n");
  EXPECT_THAT(header_line(), StartsWith("#"));
  EXPECT_THAT(row_line(example()), StartsWith(" "));
  EXPECT_EQ(header_line().size(), row_line(example()).size());
}

/// Rows of a test in virtual time: exact, and in no time.
nlohmann::json simulate(const std::string& test, PerfOptions options) {
  std::string folder = (std::filesystem::temp_directory_path() / "slip-perf-XXXXXX").string();
  EXPECT_NE(mkdtemp(folder.data()), nullptr);
  options.transport = "sim";
  options.json = folder + "/rows.json";
  testing::internal::CaptureStdout();
  run(test, options);
  testing::internal::GetCapturedStdout();
  const auto rows = nlohmann::json::parse(read_file(options.json))["rows"];
  std::filesystem::remove_all(folder);
  return rows;
}

PerfOptions few() {
  PerfOptions options;
  options.iterations = 5;
  options.warm_up = 1;
  return options;
}

TEST(PerfRun, EveryTestChecksItsContentsAndFindsThemRight) {
  for (const char* test : {"put", "ring", "token", "update", "all-reduce", "partial-all-reduce",
                           "relay", "fragment"}) {
    PerfOptions options = few();
    if (std::string(test) != "token") {
      options.begin = "100";
      options.end = "1K";
    }
    const auto rows = simulate(test, options);
    ASSERT_FALSE(rows.empty()) << test;
    for (const auto& row : rows) EXPECT_EQ(row["wrong"], 0) << test << row;
  }
}

TEST(PerfRun, LatencyIsThatOfTheModelledLink) {
  PerfOptions options = few();
  options.link = "latency=3us";
  const auto row = simulate("token", options).at(0);
  EXPECT_EQ(row["min"], 3.0);
  EXPECT_EQ(row["max"], 3.0);
}

TEST(PerfRun, PairsWorkAtTheSameTime) {
  PerfOptions options = few();
  options.workers = 6;
  options.link = "latency=3us";
  EXPECT_EQ(simulate("token", options).at(0)["p50"], 3.0);
}

TEST(PerfRun, TwoRanksOfManyAreMeasuredAlone) {
  for (const char* test : {"put", "ring", "token", "update", "fragment"}) {
    PerfOptions options = few();
    options.workers = 5;
    options.between = "3,1";
    if (std::string(test) != "token") options.begin = options.end = "100";
    const auto rows = simulate(test, options);
    ASSERT_FALSE(rows.empty()) << test;
    EXPECT_EQ(rows.at(0)["iterations"], 5) << test;
    for (const auto& row : rows) EXPECT_EQ(row["wrong"], 0) << test << row;
  }
  PerfOptions options = few();
  options.workers = 5;
  options.between = "3,1";
  options.link = "latency=3us";
  EXPECT_EQ(simulate("token", options).at(0)["max"], 3.0);
  options.seconds = 1e-3;  // rank 0, which takes no part, learns from them how long one lasts
  EXPECT_EQ(simulate("token", options).at(0)["iterations"], 166);
}

TEST(PerfRun, AllReduceBandwidthIsThatOfTheBus) {
  PerfOptions options = few();
  options.workers = 4;
  options.begin = options.end = "64K";
  options.link = "rate=8gbit";
  const auto row = simulate("all-reduce", options).at(0);
  EXPECT_THAT(row["bw"].get<double>(),
              DoubleNear(65536 * 1.5 / row["avg"].get<double>() * 1e-3, 1e-9));
}

TEST(PerfRun, AFreshGroupTakesNoLongerThanARepeatedOne) {
  PerfOptions options = few();
  options.workers = 7;
  options.group_size = 3;
  options.begin = options.end = "64K";
  options.link = "rate=8gbit,latency=3us";
  const auto repeated = simulate("partial-all-reduce", options).at(0);
  options.groups = "fresh";
  const auto fresh = simulate("partial-all-reduce", options).at(0);
  EXPECT_GT(fresh["p50"], 0);
  EXPECT_LE(fresh["p50"], 1.1 * repeated["p50"].get<double>());
  EXPECT_EQ(fresh["wrong"], 0);
}

TEST(PerfRun, PartialAllReduceTakesHostsAlgorithmsAndWires) {
  for (const Wire wire : {Wire::exact, Wire::bf16}) {
    PerfOptions options = few();
    options.workers = 8;
    options.hosts = 2;
    options.begin = options.end = "256K";
    options.link = "rate=8gbit,latency=3us";
    options.wire = wire;
    options.explain = true;
    const auto chosen = simulate("partial-all-reduce", options).at(0);
    EXPECT_EQ(chosen["wrong"], 0);
    options.algorithm = Algorithm::two_shot;
    EXPECT_GT(simulate("partial-all-reduce", options).at(0)["p50"], chosen["p50"]);
  }
}

TEST(PerfRun, AGroupIsAskedForInARoundTrip) {
  PerfOptions options = few();
  options.workers = 6;
  options.group_size = 3;
  options.link = "latency=3us";
  EXPECT_EQ(simulate("group", options).at(0)["max"], 6.0);
}

TEST(PerfRun, WithoutCheckNothingIsCounted) {
  PerfOptions options = few();
  options.check = 0;
  EXPECT_TRUE(simulate("token", options).at(0)["wrong"].is_null());
}

TEST(PerfRun, WhatATestCannotDoIsRefused) {
  EXPECT_THAT(error_of([] { run("pingpong", few()); }), StartsWith("unknown test 'pingpong'"));
  PerfOptions odd = few();
  odd.workers = 3;
  EXPECT_THAT(error_of([&] { run("put", odd); }), HasSubstr("allowed are even numbers"));
  PerfOptions virtual_time = few();
  virtual_time.transport = "sim";
  EXPECT_THAT(error_of([&] { run("kernel", virtual_time); }), HasSubstr("shm, threads"));
  PerfOptions user = few();
  user.buffers = "user";
  EXPECT_THAT(error_of([&] { run("ring", user); }), StartsWith("--buffers is user"));
  PerfOptions sized = few();
  sized.begin = "64";
  EXPECT_THAT(error_of([&] { run("token", sized); }), HasSubstr("only 8 bytes"));
  PerfOptions link = few();
  link.link = "latency=1us";
  EXPECT_THAT(error_of([&] { run("put", link); }), StartsWith("--link is for --transport sim"));
  PerfOptions fresh = few();
  fresh.groups = "fresh";
  EXPECT_THAT(error_of([&] { run("partial-all-reduce", fresh); }), HasSubstr("--group-size below"));
  PerfOptions large = few();
  large.group_size = 3;
  EXPECT_THAT(error_of([&] { run("group", large); }), StartsWith("--group-size is 3"));
  for (const char* text : {"0", "0,2", "1,1", ",", "0,1,1", "-1,0", "0, 1"}) {
    PerfOptions between = few();
    between.between = text;
    EXPECT_EQ(
        error_of([&] { run("put", between); }),
        std::string("--between is '") + text + "'; allowed are two ranks from 0 to 1, such as 0,1");
  }
  PerfOptions together = few();
  together.between = "0,1";
  EXPECT_THAT(error_of([&] { run("relay", together); }), HasSubstr("for all ranks together"));
  PerfOptions explain = few();
  explain.explain = true;
  EXPECT_THAT(error_of([&] { run("put", explain); }), StartsWith("--explain is for"));
  PerfOptions on_gpu = few();
  on_gpu.memory = "cuda";
  EXPECT_THAT(error_of([&] { run("ring", on_gpu); }), StartsWith("-m is cuda; ring allows host"));
}

TEST(PerfOptionsTable, ShortNamesBelongToOptions) {
  PerfOptions options;
  const Options table = describe(options);
  for (const auto& [name, letter] : short_names()) {
    EXPECT_NE(table.find(name), nullptr) << name;
    EXPECT_THAT(letter, StartsWith("-"));
  }
}

}  // namespace
}  // namespace slip::perf
