#include "slipstream/trainer/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "slipstream/base/error.h"
#include "slipstream/trainer/files.h"
#include "slipstream/trainer/table.h"
#include "slipstream/trainer/trace.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

Report example() {
  Report report;
  report.slipstream = "0.1.0";
  report.protocol = "hop";
  report.transport = "sim";
  report.workers = 2;
  report.seed = 7;
  report.options = {{"max_gap", "5"}, {"graph", "ring"}, {"lr", "0.1"}, {"tokens", "true"}};
  report.seconds = 0.1 + 0.2;  // needs all its digits
  report.iterations = {10, 20};
  report.final = {0.25, 0.9};
  report.target = Report::Target{"accuracy", 0.95, std::nullopt};
  report.max_gap_seen = 3;
  report.updates = {40, 38, 2};
  report.bytes_sent = std::uint64_t{1} << 60;
  report.per_worker = {{0, 10, 0, 0.1, 0.2, std::nullopt, 5}, {1, 20, 3, 0.3, 0.0, 0.5, 6}};
  report.curve = {{0.05, 5, 1.5, std::nullopt, 0.125, std::nullopt}};
  report.parameters = {{{1.0, 1.0 / 3}, {0.0, -2.5}}};
  return report;
}

std::string complaint(const std::string& json) {
  try {
    (void)report_from_json(json, "a.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::bad_data);
    return error.what();
  }
  return "no error";
}

std::string temporary_folder() {
  std::string folder = testing::TempDir() + "slip_report_XXXXXX";
  EXPECT_NE(::mkdtemp(folder.data()), nullptr);
  return folder;
}

TEST(Report, JsonHasTheDocumentedFieldsInOrder) {
  const auto json = nlohmann::ordered_json::parse(to_json(example()));
  std::vector<std::string> names;
  for (const auto& [name, value] : json.items()) names.push_back(name);
  EXPECT_THAT(names, ElementsAre("slipstream", "protocol", "transport", "workers", "seed",
                                 "options", "seconds", "seconds_per_iteration", "iterations",
                                 "final", "target", "max_gap_seen", "updates", "bytes_sent",
                                 "per_worker", "curve", "parameters"));
  EXPECT_EQ(json["options"].dump(), R"({"max_gap":5,"graph":"ring","lr":0.1,"tokens":true})");
  EXPECT_EQ(json["seconds_per_iteration"].get<double>(), (0.1 + 0.2) / 15);
  EXPECT_EQ(json["target"].dump(),
            R"({"metric":"accuracy","value":0.95,"reached_at_seconds":null})");
  EXPECT_EQ(json["per_worker"][0]["cpu_seconds"].dump(), "null");
  EXPECT_EQ(json["curve"][0]["spread"].get<double>(), 0.125);
}

TEST(Report, WhatIsAbsentIsNull) {
  const auto json = nlohmann::ordered_json::parse(to_json(Report()));
  EXPECT_TRUE(json["target"].is_null());
  EXPECT_TRUE(json["seconds_per_iteration"].is_null());
  EXPECT_TRUE(json["max_gap_seen"].is_null());
  EXPECT_TRUE(json["final"]["loss"].is_null());
  EXPECT_TRUE(json["iterations"].is_array());
  EXPECT_FALSE(json.contains("parameters"));
}

TEST(Report, TheWorstWorkersAccuracyIsThatOfTheLastEvaluationOfEach) {
  Report report = example();
  EXPECT_THAT(to_json(report), testing::Not(HasSubstr("worst_accuracy")));
  EXPECT_EQ(report.worst_accuracy(), std::nullopt);
  report.curve.push_back(report.curve.back());
  report.curve[0].worst_accuracy = 0.5;
  report.curve[1].worst_accuracy = 0.25;
  EXPECT_EQ(report.worst_accuracy(), 0.25);
  const Report back = report_from_json(to_json(report), "a.json");
  EXPECT_EQ(back.curve[0].worst_accuracy, 0.5);
  EXPECT_EQ(back.worst_accuracy(), 0.25);
  report.curve.clear();
  EXPECT_EQ(report.worst_accuracy(), std::nullopt);
}

TEST(Report, TheMedianWorkerTakesNoNoticeOfASlowOne) {
  Report report;
  report.seconds = 30;
  report.iterations = {30, 3, 30};
  EXPECT_EQ(report.median_seconds_per_iteration(), 1.0);
  EXPECT_GT(report.seconds_per_iteration(), 1.4);
  report.iterations = {30, 10, 5, 3};
  EXPECT_EQ(report.median_seconds_per_iteration(), 4.0);
  report.iterations = {0, 0, 5};
  EXPECT_EQ(report.median_seconds_per_iteration(), std::nullopt);
  report.iterations.clear();
  EXPECT_EQ(report.median_seconds_per_iteration(), std::nullopt);
}

TEST(Report, ReadsBackToTheSameBytes) {
  const std::string text = to_json(example());
  const Report back = report_from_json(text, "a.json");
  EXPECT_EQ(to_json(back), text);
  EXPECT_EQ(back.seconds, example().seconds);
  EXPECT_EQ(back.options, example().options);
  EXPECT_EQ(back.parameters, example().parameters);
  EXPECT_EQ(back.bytes_sent, example().bytes_sent);
  EXPECT_EQ(to_json(report_from_json(to_json(Report()), "b")), to_json(Report()));
}

TEST(Report, ALossThatDivergedIsNullAndReadsBack) {
  Report report = example();
  report.final.loss = std::numeric_limits<double>::infinity();
  report.curve[0].loss = std::nan("");
  (*report.parameters)[0][0][0] = std::nan("");
  const Report back = report_from_json(to_json(report), "a.json");
  EXPECT_FALSE(back.final.loss.has_value());
  EXPECT_FALSE(back.curve[0].loss.has_value());
  EXPECT_TRUE(std::isnan((*back.parameters)[0][0][0]));
}

TEST(Report, AFileThatIsNoReportIsNamedWithItsField) {
  EXPECT_THAT(complaint("{"), HasSubstr("a.json is no report: "));
  EXPECT_THAT(complaint("[]"), HasSubstr("a.json is no report: the file is not an object"));
  EXPECT_THAT(complaint("{}"), HasSubstr("slipstream is missing"));

  const auto with = [](const std::string& pointer, const nlohmann::ordered_json& value) {
    auto json = nlohmann::ordered_json::parse(to_json(example()));
    json[nlohmann::ordered_json::json_pointer(pointer)] = value;
    return json.dump();
  };
  EXPECT_THAT(complaint(with("/workers", "two")), HasSubstr("workers is not a whole number"));
  EXPECT_THAT(complaint(with("/workers", 1e10)), HasSubstr("workers is not a whole number"));
  EXPECT_THAT(complaint(with("/curve/0/seconds", "x")),
              HasSubstr("curve[0].seconds is not a number"));
  EXPECT_THAT(complaint(with("/iterations/1", -1)), HasSubstr("iterations[1] is not a whole"));
  EXPECT_THAT(complaint(with("/per_worker", 3)), HasSubstr("per_worker is not a list"));
  EXPECT_THAT(complaint(with("/parameters/0/1/0", "x")),
              HasSubstr("parameters[0][1][0] is not a number"));
  EXPECT_EQ(complaint(with("/new_field", 3)), "no error");
}

TEST(Files, AWriteReplacesTheFileAndLeavesNothingElse) {
  const std::string folder = temporary_folder();
  const std::string path = folder + "/report.json";
  write_report(example(), path);
  write_report(Report(), path);
  EXPECT_EQ(to_json(read_report(path)), to_json(Report()));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  std::filesystem::remove_all(folder);
}

TEST(Files, AWriteThatCannotBeNamesTheFileAndLeavesNothing) {
  const std::string folder = temporary_folder();
  std::filesystem::create_directories(folder + "/taken/inside");
  for (const std::string& path : {folder + "/taken", folder + "/absent/report.json"}) {
    try {
      write_file(path, "x");
      ADD_FAILURE() << path << " was written";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(path));
    }
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  std::filesystem::remove_all(folder);
}

TEST(Files, ALinkIsWrittenThroughAndNotReplaced) {
  const std::string folder = temporary_folder();
  write_file(folder + "/real", "old");
  std::filesystem::create_symlink("real", folder + "/link");
  write_file(folder + "/link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder + "/link"));
  EXPECT_EQ(read_file(folder + "/real"), "new");
  std::filesystem::remove_all(folder);
}

TEST(Timeline, CountsWhatItHasNoRoomFor) {
  Timeline timeline(3, 2);
  const Span* memory = nullptr;
  for (Iteration k = 0; k < 5; ++k) {
    timeline.record(SpanKind::compute, k, 10ms * k, 10ms * (k + 1));
    if (k == 0) memory = timeline.spans().data();
  }
  EXPECT_EQ(timeline.spans().size(), 2u);
  EXPECT_EQ(timeline.spans().data(), memory);
  EXPECT_EQ(timeline.spans()[1].iteration, 1u);
  EXPECT_EQ(timeline.dropped(), 3u);
}

TEST(Trace, IsChromesFormatWithATrackPerWorker) {
  const std::vector<Span> spans{
      {0, SpanKind::compute, 4, 1500ns, 3us},
      {1, SpanKind::wait, 4, 3us, 10us},
      {1, static_cast<SpanKind>(99), 4, 3us, 10us},
      {1, SpanKind::wait, 4, 10us, 3us},
  };
  const auto json = nlohmann::json::parse(chrome_trace(spans, "hop \"x\""));
  const auto& events = json["traceEvents"];
  ASSERT_EQ(events.size(), 2u + 2 + 1);  // sound spans, workers' names, the process's
  EXPECT_EQ(events[0]["name"], "compute");
  EXPECT_EQ(events[0]["ph"], "X");
  EXPECT_EQ(events[0]["ts"], 1.5);
  EXPECT_EQ(events[0]["dur"], 1.5);
  EXPECT_EQ(events[0]["args"]["iteration"], 4);
  EXPECT_EQ(events[1]["tid"], 1);
  EXPECT_EQ(events[4]["args"]["name"], "hop \"x\"");
  EXPECT_TRUE(nlohmann::json::accept(chrome_trace({}, "")));
}

TEST(Trace, ReadsBackWhatItWrote) {
  const std::vector<Span> spans{{0, SpanKind::compute, 4, 1500ns, 3us},
                                {7, SpanKind::apply, 5, 1234567891ns, 1234567999ns}};
  const std::vector<Span> back = spans_from_chrome_trace(chrome_trace(spans, "hop"), "a file");
  ASSERT_EQ(back.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(back[i].rank, spans[i].rank);
    EXPECT_EQ(back[i].kind, spans[i].kind);
    EXPECT_EQ(back[i].iteration, spans[i].iteration);
    EXPECT_EQ(back[i].begin, spans[i].begin);
    EXPECT_EQ(back[i].end, spans[i].end);
  }
  for (const char* damaged : {"", "[]", R"({"traceEvents":[{"ph":"X"}]})"}) {
    EXPECT_THROW(spans_from_chrome_trace(damaged, "a file"), Error) << damaged;
  }
}

TEST(Timeline, CountsFromItsOrigin) {
  Timeline timeline(0, 1);
  timeline.start_at(1s);
  timeline.record(SpanKind::wait, 0, 1010ms, 1030ms);
  EXPECT_EQ(timeline.spans()[0].begin, 10ms);
  EXPECT_EQ(timeline.spans()[0].end, 30ms);
}

TEST(Table, AlignsNamesLeftAndNumbersRight) {
  EXPECT_EQ(to_text({{"protocol", "gap"}, {{"hop", "5"}, {"all_reduce", "-"}}}),
            "protocol    gap\n"
            "----------  ---\n"
            "hop           5\n"
            "all_reduce    -\n");
  EXPECT_EQ(to_markdown({{"protocol", "gap"}, {{"hop", "5"}}}),
            "| protocol | gap |\n| --- | ---: |\n| hop | 5 |\n");
}

TEST(Comparison, SpeedUpIsOfTheTimeToTargetAgainstTheFirstRow) {
  Report slow = example();
  slow.protocol = "all_reduce";
  slow.target->reached_at_seconds = 20;
  Report fast = example();
  fast.target->reached_at_seconds = 8;
  const Report missed = example();
  const Table table = comparison(
      std::vector<NamedReports>{{"", {&slow}}, {"", {&fast}}, {"hop, backup 1", {&missed}}});
  EXPECT_THAT(table.rows[0],
              ElementsAre("all_reduce", "20.00", "0.02000", "1.00x", "3", "2", "0.9000"));
  EXPECT_THAT(table.rows[1], ElementsAre("hop", "8.000", "0.02000", "2.50x", "3", "2", "0.9000"));
  EXPECT_THAT(table.rows[2], ElementsAre("hop, backup 1", "-", "0.02000", "-", "3", "2", "0.9000"));
}

TEST(Comparison, WithoutATargetSpeedUpIsPerIterationAndLossStandsForAccuracy) {
  Report slow = example();
  slow.target.reset();
  slow.final.accuracy.reset();
  Report fast = slow;
  fast.seconds /= 2;
  fast.max_gap_seen.reset();
  const Table table = comparison(std::vector<NamedReports>{{"", {&slow}}, {"", {&fast}}});
  EXPECT_EQ(table.header.back(), "final loss");
  EXPECT_THAT(table.rows[1], ElementsAre("hop", "-", "0.01000", "2.00x", "-", "2", "0.2500"));
}

}  // namespace
}  // namespace slip
