// Scenario files of `slip compare`: what they may say, what is run, how the results are judged.
#include "slipstream/tools/slip/scenario.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "slipstream/tools/slip/findings.h"
#include "slipstream/tools/slip/grid.h"
#include "slipstream/tools/slip/result_page.h"
#include "slipstream/tools/slip/verdict.h"

namespace slip::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using testing::SizeIs;

/// A scenario file that is there while the test runs, and what is made of it.
class ScenarioFile : public testing::Test {
 protected:
  ScenarioFile() : path_(testing::TempDir() + "slip-scenario-" + std::to_string(getpid())) {
    options_ = describe(config_);
    options_.remove({"protocol"});
    options_.add("protocols", protocols_, "");
  }
  ~ScenarioFile() override { std::remove(path_.c_str()); }

  Scenario read(const std::string& content, bool short_form = false) {
    std::ofstream(path_) << content;
    return read_scenario(path_, options_, short_form);
  }

  Grid grid(const std::string& content, const std::vector<Setting>& overrides = {}) {
    return make_grid(read(content), {}, overrides);
  }

  /// The line that refuses the file, without the folder in front of "FILE:LINE: ".
  std::string refusal(const std::string& content, bool short_form = false) {
    try {
      make_grid(read(content, short_form), {}, {});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      const std::string line = error.what();
      EXPECT_THAT(line, Not(HasSubstr("\n")));
      const std::size_t at = line.find(path_);
      return at == line.npos ? line : "FILE" + line.substr(at + path_.size());
    }
    return "nothing is refused";
  }

  std::string path_;
  TrainConfig config_;
  std::vector<std::string> protocols_;
  Options options_;
};

std::vector<std::string> names(const Grid& grid) {
  std::vector<std::string> names;
  for (const Grid::Case& one : grid.cases) names.push_back(one.name);
  return names;
}

const std::string two_runs =
    "task = 'none'\nbatch = 7\nseed = 3\n"
    "[[run]]\nname = 'standard'\n"
    "[[run]]\nname = 'backup'\nbatch = 8\nhop.backup = 1\nset.max_gap = 4\n";

TEST_F(ScenarioFile, ARunGoesOverWhatHoldsForAll) {
  const Grid g = grid(two_runs);
  EXPECT_THAT(names(g), ElementsAre("standard", "backup"));
  EXPECT_EQ(g.cases[0].config.batch, 7);
  EXPECT_EQ(g.cases[1].config.batch, 8);
  EXPECT_EQ(g.cases[1].config.seed, 3u);
  EXPECT_EQ(g.cases[1].config.task, "none");
  EXPECT_THAT(g.cases[0].config.set, IsEmpty());
  EXPECT_THAT(g.cases[1].config.set, testing::UnorderedElementsAre("hop.backup=1", "max_gap=4"));
  EXPECT_THAT(g.places, ElementsAre(IsEmpty()));
}

TEST_F(ScenarioFile, OptionsForAllGoToTheProtocolsThatHaveThem) {
  const Grid g = grid(
      "set.max_gap = 4\n"
      "[[run]]\nname = 'a'\nprotocol = 'all_reduce'\n"
      "[[run]]\nname = 'b'\nprotocol = 'hop'\n");
  EXPECT_EQ(g.cases[0].config.protocol, "all_reduce");
  EXPECT_THAT(g.cases[0].config.set, IsEmpty());
  EXPECT_THAT(g.cases[1].config.set, ElementsAre("max_gap=4"));
}

TEST_F(ScenarioFile, AllCombinationsOfASweepAreRun) {
  const Grid g = grid(
      "[sweep]\nseed = [1, 2]\ngraph = ['ring', 'star']\nhop.max_gap = [3, 5]\n"
      "slow = [[], ['rank=0,x=2', 'rank=1,x=3']]\n"
      "[[run]]\nname = 'a'\n[[run]]\nname = 'b'\n");
  EXPECT_THAT(g.cases, SizeIs(2 * 2 * 2 * 2 * 2));
  EXPECT_THAT(g.places, SizeIs(8));
  EXPECT_THAT(g.swept, ElementsAre("graph", "hop.max_gap", "slow"));
  EXPECT_EQ(g.cases.front().name, "a, ring, 3, none, seed 1");
  const Grid::Case& last = g.cases.back();
  EXPECT_EQ(last.name, "b, star, 5, rank=0,x=2 rank=1,x=3, seed 2");
  EXPECT_EQ(last.config.graph, "star");
  EXPECT_EQ(last.config.seed, 2u);
  EXPECT_THAT(last.config.set, ElementsAre("hop.max_gap=5"));
  EXPECT_THAT(last.config.slow, ElementsAre("rank=0,x=2", "rank=1,x=3"));
  EXPECT_EQ(g.places.back(), g.places[last.place]);
}

TEST_F(ScenarioFile, AnOptionThatProtocolsShareMayBeSweptForAllOfThem) {
  const Grid g = grid(
      "[sweep]\nset.fanout = [4, 8]\n"
      "[[run]]\nname = 'a'\nprotocol = 'div_share'\n"
      "[[run]]\nname = 'b'\nprotocol = 'ad_psgd'\n");
  EXPECT_THAT(g.swept, ElementsAre("fanout"));
  EXPECT_THAT(g.cases.front().config.set, ElementsAre("fanout=4"));
  EXPECT_THAT(g.cases.back().config.set, ElementsAre("fanout=8"));
  EXPECT_EQ(g.cases.back().config.protocol, "ad_psgd");
}

TEST_F(ScenarioFile, TheCommandLineGoesOverEverythingAndEndsASweep) {
  const Grid g = grid(
      two_runs + "[sweep]\ngraph = ['ring', 'star']\n",
      {{"graph", "chain", "--graph"}, {"batch", "9", "--batch"}, {"set", "max_gap=2", "--set"}});
  EXPECT_THAT(names(g), ElementsAre("standard", "backup"));
  EXPECT_EQ(g.cases[1].config.graph, "chain");
  EXPECT_EQ(g.cases[1].config.batch, 9);
  EXPECT_EQ(g.cases[1].config.set.back(), "max_gap=2");
  EXPECT_THAT(g.places, ElementsAre(ElementsAre(Pair("graph", "chain"))));
}

TEST_F(ScenarioFile, TheShortFormGoesOverTheFullOne) {
  const std::string content =
      "iterations = 1000\n"
      "[sweep]\ngraph = ['ring', 'star']\nseed = [1, 2, 3]\n"
      "[short]\niterations = 10\ngraph = 'ring'\nsweep.seed = [1, 2]\n"
      "[[run]]\nname = 'a'\n";
  const Grid full = make_grid(read(content), {}, {});
  EXPECT_THAT(full.cases, SizeIs(6));
  EXPECT_EQ(full.cases[0].config.iterations, 1000);
  const Grid brief = make_grid(read(content, true), {}, {});
  EXPECT_THAT(names(brief), ElementsAre("a, seed 1", "a, seed 2"));
  EXPECT_EQ(brief.cases[0].config.iterations, 10);
  EXPECT_EQ(brief.cases[0].config.graph, "ring");
}

TEST_F(ScenarioFile, WithoutRunsTheProtocolsAreCompared) {
  const Grid g = make_grid(read("set.max_gap = 4\n"), {"all_reduce", "hop"}, {});
  EXPECT_THAT(g.runs, ElementsAre("all_reduce", "hop"));
  EXPECT_EQ(g.cases[1].config.protocol, "hop");
  EXPECT_THROW(make_grid(read(two_runs), {"hop"}, {}), Error);
}

TEST_F(ScenarioFile, WhatIsWrongIsNamedWithFileAndLine) {
  const std::string run = "[[run]]\nname = 'a'\n";
  const std::string sweep = "[sweep]\ngraph = ['ring', 'star']\n";
  const std::string expect = "[[expect]]\nmetric = 'seconds'\nrun = 'a'\n";
  const std::pair<std::string, const char*> cases[] = {
      {"titel = 'x'\n", "FILE:1: unknown option 'titel'; did you mean 'title'?"},
      {"title = 3\n", "FILE:1: title is a text, in quotes"},
      {"report = 'x'\n[[run]]\nname = 'a'\nreport = 'x'\n", "FILE:4: unknown option 'report'"},
      {"[run]\nname = 'a'\n", "FILE:1: run is a list of tables, [[run]]"},
      {"[[run]]\nhop.backup = 1\n", "FILE:1: name is missing"},
      {"[[run]]\nname = ''\n", "FILE:2: name is a text, in quotes"},
      {"[[run]]\nname = 'all'\n", "FILE:2: 'all' is what [[expect]] calls all runs"},
      {run + run, "FILE:3: a run is called 'a' already"},
      {run + "batch = 0\n", "FILE:3: batch is '0'; allowed are integers from 1"},
      {run + "bach = 1\n", "FILE:3: unknown option 'bach'; did you mean 'batch'?"},
      {run + "hop.backpu = 1\n[[run]]\nname = 'b'\nset.backpu = 1\n", "none of a, b has this"},
      {run + "protocol = 'hopp'\n", "a: unknown protocol 'hopp'; did you mean 'hop'?"},
      {"protocols = ['hop']\n" + run, "FILE:1: protocols: excludes [[run]]"},
      {"protocol = 'hop'\n", "FILE:1: protocol: needs [[run]]"},
      {"baseline = 'b'\n" + run, "baseline: unknown run 'b'; allowed are a"},
      {run + "[sweep]\ngraph = 'ring'\n", "FILE:4: graph: a sweep is an array of values"},
      {run + "[sweep]\ngraph = []\n", "FILE:4: graph: a sweep is an array of values"},
      {run + "[sweep]\ngraph = ['ring', 'ring']\n", "FILE:4: graph: 'ring' comes twice"},
      {run + "[sweep]\ngrahp = ['ring']\n", "FILE:4: unknown option 'grahp'"},
      {run + "[sweep]\nbatch = [1, 'x']\n", "FILE:4: batch is 'x'; allowed are integers"},
      {run + "graph = 'star'\n" + sweep, "FILE:3: graph: is swept; a run cannot set it"},
      {run + "hop.max_gap = 2\n[sweep]\nmax_gap = [3]\n", "unknown option 'max_gap'"},
      {run + "max_gap = 2\n", "FILE:3: unknown option 'max_gap'"},
      {run + "hop.max_gap = 2\n[sweep.hop]\nmax_gap = [3]\n", "FILE:3: hop.max_gap: is swept"},
      {run + "short = 1\n[short]\nbatch = 1\n", "FILE:3: unknown option 'short'"},
      {run + "[short]\nsweep = 1\n", "FILE:4: sweep is a table, [sweep]"},
      {run + expect, "FILE:3: what is expected is at_least, at_most or both, or value and"},
      {run + expect + "value = 1\n", "FILE:3: value and tolerance"},
      {run + expect + "value = 1\ntolerance = 0.1\nat_least = 1\n", "FILE:3: what is expected is"},
      {run + expect + "at_least = 'x'\n", "FILE:6: at_least is a number"},
      {run + expect + "at_lest = 1\n", "FILE:6: unknown key of expect 'at_lest'; did you mean"},
      {run + "[[expect]]\nmetric = 'second'\nrun = 'a'\nat_least = 1\n",
       "FILE:4: unknown metric 'second'; did you mean 'seconds'?"},
      {run + "[[expect]]\nmetric = 'seconds'\nrun = 'b'\nat_least = 1\n",
       "FILE:3: unknown run 'b'; allowed are a"},
      {run + expect + "at_least = 1\nover = 'b'\n", "FILE:3: unknown run 'b'"},
      {run + expect + "at_least = 1\nover = 1\n", "FILE:7: over is a run, in quotes, or a place"},
      {run + expect + "at_least = 1\nover = 'a'\nminus = 'a'\n", "FILE:8: minus and over exclude"},
      {run + expect + "at_least = 1\nwhere = { graph = 'ring' }\n", "FILE:7: unknown swept option"},
      {sweep + run + expect + "at_least = 1\nwhere = { graph = 'rong' }\n",
       "FILE:9: unknown graph 'rong'; did you mean 'ring'?"},
      {sweep + run + expect + "tolerance = 1\nvalue = { rong = 2 }\n",
       "FILE:9: value is a number, or a table with a number for each value of one sweep"},
  };
  for (const auto& [content, expected] : cases) {
    EXPECT_THAT(refusal(content), HasSubstr(expected)) << content;
  }
  EXPECT_THAT(refusal(run, true), HasSubstr(": --short needs the table [short]"));
}

/// A report about nothing but these.
Report report(double seconds, std::optional<double> accuracy = {},
              std::optional<double> reached = {}) {
  Report report;
  report.protocol = "hop";
  report.transport = "sim";
  report.seconds = seconds;
  report.iterations = {10, 10};
  report.final.accuracy = accuracy;
  report.target = Report::Target{"accuracy", 0.9, reached};
  report.curve = {{.seconds = 0,
                   .iteration = 0,
                   .loss = 2,
                   .accuracy = 0.1,
                   .spread = {},
                   .worst_accuracy = {}},
                  {.seconds = seconds,
                   .iteration = 10,
                   .loss = 1,
                   .accuracy = accuracy,
                   .spread = {},
                   .worst_accuracy = {}}};
  return report;
}

/// Two runs on two graphs with two seeds; `fast` takes half the time of `slow`.
class Judged : public ScenarioFile {
 protected:
  static constexpr const char* head =
      "[sweep]\ngraph = ['ring', 'star']\nseed = [1, 2]\n"
      "[[run]]\nname = 'slow'\n[[run]]\nname = 'fast'\n";

  std::vector<Verdict> judged(const std::string& expectations) {
    const Scenario scenario = read(head + expectations);
    const Grid g = make_grid(scenario, {}, {});
    return judge(scenario.expectations, found(g));
  }

  // Seconds: 10 or 20 on the ring, twice that on the star; the second seed takes 2 more.
  static Findings found(const Grid& grid, std::size_t how_many = 8) {
    Findings findings(grid);
    for (std::size_t i = 0; i < how_many; ++i) {
      const TrainConfig& config = grid.cases[i].config;
      const bool fast = grid.cases[i].run == 1;
      const double seconds =
          (fast ? 10 : 20) * (config.graph == "star" ? 2 : 1) + (config.seed == 2 ? 2 : 0);
      const bool missed = !fast && config.graph == "star" && config.seed == 2;
      findings.add(i, report(seconds, 0.5 + seconds / 100,
                             missed ? std::nullopt : std::optional(seconds / 2)));
    }
    return findings;
  }

  static Verdict::Outcome met() { return Verdict::Outcome::met; }
};

TEST_F(Judged, SeedsAndPlacesAreAveraged) {
  const auto verdicts = judged(
      "[[expect]]\nmetric = 'seconds'\nrun = 'all'\nwhere.graph = 'ring'\nat_least = 15\n"
      "[[expect]]\nmetric = 'seconds'\nrun = 'fast'\nvalue = 16\ntolerance = 0.01\n"
      "[[expect]]\nmetric = 'seconds'\nrun = 'fast'\nvalue = { ring = 11, star = 20 }\n"
      "tolerance = 0.01\n");
  ASSERT_THAT(verdicts, SizeIs(5));
  EXPECT_EQ(verdicts[0].what, "seconds of slow, graph=ring");
  EXPECT_EQ(verdicts[0].seen, "21");
  EXPECT_EQ(verdicts[0].outcome, Verdict::Outcome::met);
  EXPECT_EQ(verdicts[1].seen, "11");
  EXPECT_EQ(verdicts[1].outcome, Verdict::Outcome::missed);
  EXPECT_EQ(verdicts[2].outcome, Verdict::Outcome::met);
  EXPECT_EQ(verdicts[2].expected, "16 ± 1 %");
  EXPECT_EQ(verdicts[3].outcome, Verdict::Outcome::met);
  EXPECT_EQ(verdicts[4].what, "seconds of fast, graph=star");
  EXPECT_EQ(verdicts[4].seen, "21");
  EXPECT_EQ(verdicts[4].outcome, Verdict::Outcome::missed);
}

TEST_F(Judged, RunsAndPlacesAreHeldAgainstOthers) {
  const auto verdicts = judged(
      "[[expect]]\nmetric = 'seconds'\nrun = 'slow'\nover = 'fast'\nat_least = 1.9\nat_most = 2\n"
      "[[expect]]\nmetric = 'seconds'\nrun = 'all'\nminus = 'fast'\nat_most = 0\n"
      "[[expect]]\nmetric = 'seconds'\nrun = 'fast'\nwhere.graph = 'star'\n"
      "over = { graph = 'ring' }\nvalue = 2\ntolerance = 0.05\n"
      "[[expect]]\nmetric = 'seconds'\nrun = 'fast'\nover = { run = 'slow', graph = 'ring' }\n"
      "at_most = 1\n");
  ASSERT_THAT(verdicts, SizeIs(4));
  EXPECT_EQ(verdicts[0].what, "seconds of slow over fast");
  EXPECT_EQ(verdicts[0].expected, "1.9 to 2");
  EXPECT_EQ(verdicts[0].seen, "1.938");
  EXPECT_EQ(verdicts[0].outcome, Verdict::Outcome::met);
  EXPECT_EQ(verdicts[1].what, "seconds of slow minus fast");
  EXPECT_EQ(verdicts[1].seen, "15");
  EXPECT_EQ(verdicts[1].outcome, Verdict::Outcome::missed);
  EXPECT_EQ(verdicts[2].what, "seconds of fast, graph=star over graph=ring");
  EXPECT_EQ(verdicts[2].outcome, Verdict::Outcome::met);
  EXPECT_EQ(verdicts[3].what, "seconds of fast over slow, graph=ring");
  EXPECT_EQ(verdicts[3].seen, "0.7619");
}

TEST_F(Judged, ATargetThatOneSeedMissesIsAMiss) {
  const auto verdicts =
      judged("[[expect]]\nmetric = 'target.reached_at_seconds'\nrun = 'all'\nat_most = 1e9\n");
  ASSERT_THAT(verdicts, SizeIs(2));
  EXPECT_EQ(verdicts[0].outcome, Verdict::Outcome::missed);
  EXPECT_EQ(verdicts[0].seen, "-");
  EXPECT_EQ(verdicts[1].outcome, Verdict::Outcome::met);
}

TEST_F(Judged, WhatHasNotRunIsNotJudged) {
  const Scenario scenario =
      read(std::string(head) +
           "[[expect]]\nmetric = 'seconds'\nrun = 'fast'\nvalue = { ring = 1, star = 2 }\n"
           "tolerance = 0.01\n"
           "[[expect]]\nmetric = 'seconds'\nrun = 'fast'\nat_most = 1e9\n");
  const Grid ring = make_grid(scenario, {}, {{"graph", "ring", "--graph"}});
  auto verdicts = judge(scenario.expectations, found(ring, 4));
  EXPECT_EQ(verdicts[0].outcome, Verdict::Outcome::missed);
  EXPECT_EQ(verdicts[1].outcome, Verdict::Outcome::not_run);
  EXPECT_EQ(verdicts[2].outcome, Verdict::Outcome::not_run) << "a mean over one graph of two";
  const Grid whole = make_grid(scenario, {}, {});
  verdicts = judge(scenario.expectations, found(whole, 3));
  EXPECT_EQ(verdicts[0].outcome, Verdict::Outcome::not_run) << "one seed of two";
}

TEST_F(Judged, TablesShowRunsByPlacesWithMeanAndDeviation) {
  const Grid g = grid(head);
  const std::vector<TitledTable> shown = tables(found(g));
  ASSERT_THAT(shown, SizeIs(5));
  EXPECT_EQ(shown[0].title, "Seconds per iteration");
  EXPECT_THAT(shown[0].table.header, ElementsAre("graph", "ring", "star", "mean"));
  EXPECT_THAT(shown[0].table.rows[1], ElementsAre("fast", "1.100 ± 0.14", "2.100 ± 0.14", "1.600"));
  EXPECT_EQ(shown[1].title, "Speed-up over slow, per iteration");
  EXPECT_THAT(shown[1].table.rows[1], ElementsAre("fast", "1.91x", "1.95x", "1.94x"));
  EXPECT_THAT(shown[2].table.rows[0], ElementsAre("slow", "10.50 ± 0.71", "-", "-"));
  EXPECT_EQ(shown[4].title, "Final accuracy");
}

TEST_F(Judged, OfOnePlaceOneTableIsShownWithTheBaselineFirst) {
  const Scenario scenario = read(std::string("baseline = 'fast'\n") + head);
  const Grid g = make_grid(scenario, {}, {{"graph", "ring", "--graph"}});
  const std::vector<TitledTable> shown = tables(found(g, 4));
  ASSERT_THAT(shown, SizeIs(1));
  EXPECT_EQ(shown[0].table.rows[0][0], "fast");
  EXPECT_EQ(shown[0].table.rows[1][3], "0.52x");
}

TEST_F(Judged, TheMedianWorkerIsShownWhereSomethingIsExpectedOfIt) {
  const char* expect =
      "[[expect]]\nmetric = 'median_seconds_per_iteration'\nrun = 'fast'\nat_most = 2\n";
  const Scenario scenario = read(std::string(head) + expect);
  const Grid whole = make_grid(scenario, {}, {});
  const std::vector<TitledTable> shown = tables(found(whole));
  ASSERT_THAT(shown, SizeIs(7));
  EXPECT_EQ(shown[2].title, "Seconds per iteration of the median worker");
  EXPECT_EQ(shown[3].title, "Speed-up over slow, per iteration of the median worker");
  const Grid ring = make_grid(scenario, {}, {{"graph", "ring", "--graph"}});
  EXPECT_EQ(tables(found(ring, 4))[0].table.header[3], "of the median");
}

TEST_F(Judged, ThePageHasTablesPlotsAndVerdictsAndNothingElse) {
  const Scenario scenario =
      read(std::string("title = 'On graphs'\ntext = '''\nProse.\n'''\n") + head +
           "[[expect]]\nmetric = 'seconds'\nrun = 'slow'\nover = 'fast'\nat_least = 3\n");
  const Grid g = make_grid(scenario, {}, {});
  const Findings findings = found(g);
  const auto verdicts = judge(scenario.expectations, findings);
  const PageText text{scenario.title, scenario.text, "slip compare --config x.toml"};
  const std::vector<PageFile> files = result_page("graphs", text, findings, verdicts);
  std::vector<std::string> names;
  for (const PageFile& file : files) names.push_back(file.name);
  EXPECT_THAT(names, ElementsAre("graphs.md", "graphs-seconds-per-iteration.svg",
                                 "graphs-accuracy-ring.svg", "graphs-accuracy-star.svg",
                                 "graphs-loss-ring.svg", "graphs-loss-star.svg"));
  const std::string& page = files[0].content;
  EXPECT_THAT(page, testing::StartsWith("# On graphs\n\nProse.\n\nMade by `slip compare --config "
                                        "x.toml`. Seconds are virtual. Figures are means over 2 "
                                        "seeds, ± the standard deviation.\n\n"));
  for (std::size_t i = 1; i < names.size(); ++i) {
    EXPECT_THAT(page, HasSubstr("](" + names[i] + ")"));
  }
  EXPECT_THAT(page, HasSubstr("| fast | 1.100 ± 0.14 | 2.100 ± 0.14 | 1.600 |"));
  EXPECT_THAT(page, HasSubstr("| seconds of slow over fast | at least 3 | 1.938 | MISSED |\n"));
  EXPECT_THAT(files[1].content, AllOf(HasSubstr("<svg xmlns="), Not(HasSubstr("var(--"))));
}

}  // namespace
}  // namespace slip::cli
