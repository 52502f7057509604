// One seed, one history: reports of simulated runs, byte for byte those in golden/, on any machine
// and however it is compiled. A difference is a change of behaviour; where it is meant, remake.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "slip_program.h"
#include "slipstream/trainer/files.h"

namespace slip {
namespace {

using Words = std::vector<std::string>;

const std::filesystem::path folder = SLIP_GOLDEN_FOLDER;

struct Case {
  std::string name;
  Words arguments;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

/// The lines `NAME: ARGUMENTS` of golden/cases.
std::vector<Case> cases() {
  std::vector<Case> found;
  std::ifstream file(folder / "cases");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream rest(line.substr(line.find(':') + 1));
    Case c{line.substr(0, line.find(':')), {}};
    for (std::string word; rest >> word;) c.arguments.push_back(word);
    found.push_back(std::move(c));
  }
  return found;
}

/// The report of a simulated run, line by line, without its version.
Words report_of(const Words& arguments) {
  Words all{"train", "--quiet", "--transport", "sim"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  all.insert(all.end(), {"--report", "report.json"});
  SlipProgram slip(all);
  EXPECT_EQ(slip.wait().error, "");
  std::istringstream report(read_file(slip.folder() / "report.json"));
  Words lines;
  for (std::string line; std::getline(report, line);) {
    lines.push_back(line.starts_with("  \"slipstream\":") ? "  \"slipstream\": \"\"," : line);
  }
  return lines;
}

Words golden(const std::string& name) {
  Words lines;
  std::ifstream file(folder / (name + ".json"));
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

class Golden : public testing::TestWithParam<Case> {};

TEST_P(Golden, ReportIsWhatItWas) {
  const Words expected = golden(GetParam().name);
  const Words lines = report_of(GetParam().arguments);
  const auto line = [](const Words& of, std::size_t at) {
    return at < of.size() ? of[at] : "(the end)";
  };
  for (std::size_t at = 0; at < std::max(expected.size(), lines.size()); ++at) {
    ASSERT_EQ(line(lines, at), line(expected, at))
        << GetParam().name << ".json:" << at + 1
        << ": the first difference; if it is meant: tests/simulation/golden/remake "
        << GetParam().name;
  }
}

INSTANTIATE_TEST_SUITE_P(Reports, Golden, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(GoldenFolder, HoldsOnlyReportsOfCases) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    const auto is_it = [&](const Case& c) { return c.name == entry.path().stem(); };
    const std::vector<Case> all = cases();
    EXPECT_TRUE(std::any_of(all.begin(), all.end(), is_it)) << entry.path();
  }
}

TEST(Seed, TheSameGivesTheSameReportAndAnotherAnother) {
  const auto report = [](const std::string& seed) {
    return report_of({"--task", "quadratic", "--workers", "8", "--set", "backup=1", "--iterations",
                      "50", "--compute", "10ms,jitter=0.1", "--slow", "random,x=6,p=1/n", "--link",
                      "rate=60mbit,latency=1ms", "--seed", seed});
  };
  const Words first = report("1");
  EXPECT_EQ(report("1"), first);
  Words second = report("2");
  // Not only by the seed that they name.
  for (std::string& line : second) {
    if (line.find("\"seed\": 2") != line.npos) line.replace(line.find(": 2"), 3, ": 1");
  }
  EXPECT_NE(second, first);
}

}  // namespace
}  // namespace slip
