// `slip compare` with scenario files, as its users meet it.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "slip_program.h"
#include "slipstream/trainer/files.h"

namespace slip {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

/// `slip compare --config scenario.toml` with these arguments, in a folder with that file.
class Comparison {
 public:
  explicit Comparison(const std::string& scenario, std::vector<std::string> arguments = {})
      : folder_(testing::TempDir() + "slip-compare-XXXXXX") {
    if (mkdtemp(folder_.data()) == nullptr) throw_errno("mkdtemp");
    write_file(file("scenario.toml"), scenario);
    arguments.insert(arguments.begin(), {"compare", "--config", file("scenario.toml")});
    outcome_ = run_slip(arguments);
  }
  ~Comparison() { std::filesystem::remove_all(folder_); }

  int status() const { return outcome_.end.status; }
  const std::string& output() const { return outcome_.output; }
  const std::string& error() const { return outcome_.error; }
  std::string file(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
  Outcome outcome_;
};

const std::string scenario =
    "title = 'A scenario'\n"
    "task = 'targets'\nworkers = 4\ntransport = 'sim'\niterations = 20\n"
    "compute = '10ms,jitter=0.1'\nslow = ['rank=1,x=4']\n"
    "[[run]]\nname = 'standard'\n"
    "[[run]]\nname = 'skip'\nhop.backup = 1\nhop.max_jump = 10\n"
    "[sweep]\ngraph = ['ring', 'complete']\n";

std::string expecting(const std::string& bound) {
  return scenario + "[[expect]]\nmetric = 'seconds_per_iteration'\nrun = 'standard'\n" +
         "over = 'skip'\n" + bound + "\n";
}

TEST(SlipCompare, RunsEveryCaseOfItsScenario) {
  const Comparison comparison(scenario);
  EXPECT_EQ(comparison.status(), 0) << comparison.error();
  EXPECT_EQ(comparison.error(), "");
  for (const char* line :
       {"# 1 of 4: standard, ring\n", "# 2 of 4: skip, ring\n", "# 4 of 4: skip, complete\n",
        "\nSeconds per iteration\n", "\nSpeed-up over standard, per iteration\n"}) {
    EXPECT_THAT(comparison.output(), HasSubstr(line));
  }
}

TEST(SlipCompare, AMissedExpectationFailsAfterAllOutputIsWritten) {
  const Comparison met(expecting("at_least = 2"), {"--quiet"});
  EXPECT_EQ(met.status(), 0) << met.error();
  EXPECT_THAT(met.output(), AllOf(HasSubstr("  met\n"), Not(HasSubstr("# 1 of"))));

  const std::string page = fmt::format("{}slip-missed-{}.html", testing::TempDir(), getpid());
  const Comparison missed(expecting("at_most = 2"), {"--html", page});
  EXPECT_EQ(missed.status(), 1);
  EXPECT_THAT(missed.output(), AllOf(HasSubstr("  MISSED\n"), HasSubstr(page)));
  EXPECT_EQ(missed.error(), "slip compare: 1 of 1 expectations are missed\n");
  EXPECT_THAT(read_file(page), HasSubstr("skip, complete"));
  std::filesystem::remove(page);
}

TEST(SlipCompare, WritesItsPageAndItsPlots) {
  const std::string folder = fmt::format("{}slip-page-{}", testing::TempDir(), getpid());
  std::filesystem::create_directory(folder);
  std::vector<std::string> pages;
  for (int i = 0; i < 2; ++i) {
    const Comparison comparison(scenario,
                                {"--quiet", "--page", folder + "/found.md", "--seed", "7"});
    EXPECT_EQ(comparison.status(), 0) << comparison.error();
    std::string page = read_file(folder + "/found.md");
    EXPECT_THAT(page, HasSubstr("# A scenario\n\nMade by `slip compare --seed 7 --config"));
    page.erase(page.find("--config"),
               page.find('`', page.find("--config")) - page.find("--config"));
    pages.push_back(page + read_file(folder + "/found-loss-ring.svg"));
  }
  EXPECT_EQ(pages[0], pages[1]) << "one seed, one page";
  std::filesystem::remove_all(folder);
}

TEST(SlipCompare, KeepsWhatHasFinishedWhenALaterRunFails) {
  const std::string file =
      fmt::format("{}slip-compare-fails-{}.toml", testing::TempDir(), getpid());
  write_file(file,
             "task = 'targets'\nworkers = 2\ncompute = '20ms'\niterations = 1000\n"
             "[[run]]\nname = 'good'\ntransport = 'sim'\n"
             "[[run]]\nname = 'bad'\ntransport = 'shm'\n"
             "[[expect]]\nmetric = 'seconds'\nrun = 'bad'\nat_least = 1\n");
  SlipProgram slip({"compare", "--config", file, "--page", "page.md"});
  ASSERT_TRUE(slip.wait_for_output("# 2 of 2: bad\n"));
  ASSERT_EQ(kill(slip.worker(1), SIGKILL), 0);
  const Outcome outcome = slip.wait();
  EXPECT_EQ(outcome.end.status, 1);
  EXPECT_THAT(outcome.error, EndsWith("slip train: rank 1 was killed by signal 9 (SIGKILL)\n"));
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("\ngood "), HasSubstr("not run\n")));
  EXPECT_THAT(read_file(slip.folder() / "page.md"), HasSubstr("Only 1 of 2 runs have finished."));
  std::filesystem::remove(file);
}

TEST(SlipCompare, RefusesAScenarioInOneLineBeforeAnythingRuns) {
  for (const char* wrong : {"graph = 'nosuch'\n", "hop.staleness = 1\nhop.backup = 1\n",
                            "hop.max_jump = 3\n", "workers = 0\n", "task = 'nosuch'\n"}) {
    const Comparison comparison(std::string("task = 'targets'\n[[run]]\nname = 'good'\n"
                                            "[[run]]\nname = 'bad'\n") +
                                wrong);
    EXPECT_EQ(comparison.status(), 2) << wrong;
    EXPECT_EQ(comparison.output(), "") << wrong;
    EXPECT_TRUE(is_one_line(comparison.error())) << comparison.error();
    EXPECT_THAT(comparison.error(), testing::AnyOf(HasSubstr("bad: "), HasSubstr(".toml:6: ")));
  }
}

}  // namespace
}  // namespace slip
