// The command line as a user meets it: where options come from, what is refused and how, exit
// codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "slipstream/tools/slip/command.h"
#include "slipstream/tools/slip/command_line.h"
#include "slipstream/tools/slip/sources.h"
#include "slipstream/tools/slip/train_config.h"

namespace slip::cli {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

// A command with the options of `slip train` that remembers instead of running.
class Trial final : public Command {
 public:
  explicit Trial(const std::string& name, bool program = false)
      : Command(name, "a trial", "slip " + name) {
    options_ = describe(config);
    add_common_options();
    short_names_["workers"] = "-n";
    if (program) {
      arguments_name_ = "PROGRAM ARGS...";
      arguments_are_a_program_ = true;
    }
  }
  int run() override { return done; }
  const std::vector<std::string>& arguments() const { return arguments_; }

  TrainConfig config;
};

class CommandLine : public testing::Test {
 protected:
  CommandLine() {
    commands_.push_back(std::make_unique<Trial>("trial"));
    commands_.push_back(std::make_unique<Trial>("start", true));
  }
  ~CommandLine() override {
    if (!file_.empty()) std::filesystem::remove(file_);
  }

  Trial& read(std::vector<const char*> words, std::vector<const char*> environment = {}) {
    words.insert(words.begin(), "slip");
    environment.push_back(nullptr);
    read_command_line(commands_, static_cast<int>(words.size()), words.data(), environment.data(),
                      request_);
    return static_cast<Trial&>(*request_.command);
  }

  // What is refused, as one line.
  std::string refusal(std::vector<const char*> words, std::vector<const char*> environment = {}) {
    try {
      read(std::move(words), std::move(environment));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
      return error.what();
    }
    return "";
  }

  // Writes the file and returns its path, valid while the test runs.
  const char* toml(const std::string& content) {
    file_ = testing::TempDir() + "slip-cli-" + std::to_string(getpid()) + ".toml";
    std::ofstream(file_) << content;
    return file_.c_str();
  }

  Commands commands_;
  Request request_;
  std::string file_;
};

TEST_F(CommandLine, GoesOverEnvironmentOverFileOverDefault) {
  const char* file = toml("batch = 8\nworkers = 8\nseed = 8\n");
  const TrainConfig& config = read({"trial", "--config", file, "--workers", "2"},
                                   {"SLIP_WORKERS=4", "SLIP_BATCH=4", "OTHER=1"})
                                  .config;
  EXPECT_EQ(config.workers, 2);
  EXPECT_EQ(config.batch, 4);
  EXPECT_EQ(config.seed, 8u);
  EXPECT_EQ(config.momentum, 0);
}

TEST_F(CommandLine, ListsReplaceWhatALowerSourceGave) {
  const char* file = toml("slow = [\"rank=1,x=2\", \"rank=2,x=2\"]\n");
  EXPECT_THAT(read({"trial", "--config", file}).config.slow,
              ElementsAre("rank=1,x=2", "rank=2,x=2"));
  EXPECT_THAT(read({"trial", "--config", file, "--slow", "rank=3,x=4", "--slow", "rank=0,x=9"},
                   {"SLIP_SLOW=rank=5,x=5 rank=6,x=6"})
                  .config.slow,
              ElementsAre("rank=3,x=4", "rank=0,x=9"));
}

TEST_F(CommandLine, ProtocolOptionsCollectKeyByKey) {
  const char* file = toml("[set]\nmax_gap = 3\nhop.backup = 1\n[prague]\nfilter = true\n");
  EXPECT_THAT(
      read({"trial", "--config", file, "--set", "max_gap=4"}, {"SLIP_SET=a=1 b=2"}).config.set,
      ElementsAre("max_gap=3", "hop.backup=1", "prague.filter=true", "a=1", "b=2", "max_gap=4"));
}

TEST_F(CommandLine, TheFileMayBeNamedInTheEnvironmentAndBeforeTheCommand) {
  const std::string file = toml("batch = 8\n");
  EXPECT_EQ(read({"trial"}, {("SLIP_CONFIG=" + file).c_str()}).config.batch, 8);
  EXPECT_TRUE(read({"--quiet", "--config", file.c_str(), "trial"}).quiet());
}

TEST_F(CommandLine, EveryKindOfTomlValueIsTaken) {
  const char* file = toml(
      "lr = 0.25\nbatch = 64\nrecord-parameters = true\ntask = \"targets\"\n"
      "slow = \"rank=0,x=2\"\n");
  const TrainConfig& config = read({"trial", "--config", file}).config;
  EXPECT_EQ(config.lr, 0.25);
  EXPECT_EQ(config.batch, 64);
  EXPECT_TRUE(config.record_parameters);
  EXPECT_EQ(config.task, "targets");
  EXPECT_THAT(config.slow, ElementsAre("rank=0,x=2"));
}

TEST_F(CommandLine, RefusesUnknownOptionsWithTheNearest) {
  EXPECT_EQ(refusal({"trial", "--worker", "3"}),
            "unknown option '--worker'; did you mean '--workers'?");
  EXPECT_THAT(refusal({"trial", "--zzzzzzzz=1"}),
              AllOf(HasSubstr("unknown option '--zzzzzzzz'; allowed are"), HasSubstr("--workers")));
  EXPECT_THAT(refusal({"trail"}), HasSubstr("unknown command 'trail'; did you mean 'trial'?"));
  EXPECT_THAT(refusal({}), HasSubstr("allowed are trial, start"));
  EXPECT_THAT(refusal({"trial", "word"}), HasSubstr("unexpected argument 'word'"));
}

TEST_F(CommandLine, RefusesInvalidValuesAndNamesTheirSource) {
  EXPECT_EQ(refusal({"trial", "--workers", "0"}),
            "--workers is '0'; allowed are integers from 1 to 65536, none");
  EXPECT_THAT(refusal({"trial", "--workers"}),
              HasSubstr("--workers has no value; allowed are integers"));
  EXPECT_EQ(refusal({"trial", "--bind", "socket"}), "--bind is 'socket'; allowed are core, none");
  EXPECT_THAT(refusal({"trial", "--quiet=perhaps"}), HasSubstr("--quiet is 'perhaps'"));
  EXPECT_THAT(refusal({"trial"}, {"SLIP_LR_SCHEDULE=x", "SLIP_BATCH=many"}),
              HasSubstr("SLIP_BATCH is 'many'"));
  const char* file = toml("seed = 1\nbatch = 0\n");
  EXPECT_THAT(refusal({"trial", "--config", file}),
              HasSubstr(".toml:2: batch is '0'; allowed are"));
}

TEST_F(CommandLine, RefusesTomlThatIsWrongWithFileAndLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"seed = 1\nlr = \n", ":2: not TOML: "},
      {"seed = 1\n\nworkrs = 3\n", ":3: unknown option 'workrs'; did you mean 'workers'?"},
      {"[workers]\nx = 1\n", ":1: workers is a value and no table"},
      {"slow = [[1]]\n", ":1: slow: an item of a list is"},
      {"slow = [\"a b\"]\n", ":1: slow: an item of a list is"},
      {"seed = 1979-05-27\n", ":1: seed is a date"},
      {"config = \"other.toml\"\n", ":1: a file names no other file"},
  };
  for (const auto& [content, expected] : cases) {
    EXPECT_THAT(refusal({"trial", "--config", toml(content)}), HasSubstr(expected)) << content;
  }
  EXPECT_THAT(refusal({"trial", "--config", "/nowhere/a.toml"}), HasSubstr("/nowhere/a.toml"));
  EXPECT_THAT(refusal({"trial", "--config", "/"}), HasSubstr("cannot read /"));
}

TEST_F(CommandLine, GivesAUsersProgramItsArgumentsUntouched) {
  EXPECT_THAT(read({"start", "-n", "3", "--", "prog", "--quiet", "--", "-n"}).arguments(),
              ElementsAre("prog", "--quiet", "--", "-n"));
  EXPECT_EQ(static_cast<Trial&>(*request_.command).config.workers, 3);
  EXPECT_THAT(read({"start", "-n", "2", "prog", "--workers", "9", "trial"}).arguments(),
              ElementsAre("prog", "--workers", "9", "trial"));
  EXPECT_EQ(static_cast<Trial&>(*request_.command).config.workers, 2);
  EXPECT_THAT(refusal({"start", "--workres", "2", "prog"}), HasSubstr("did you mean '--workers'?"));
}

TEST_F(CommandLine, HelpListsEveryOptionAndAnExample) {
  read({"trial", "--help"});
  for (const std::string& name : commands_.front()->options().names()) {
    EXPECT_THAT(request_.print, HasSubstr("--" + name));
  }
  EXPECT_THAT(request_.print, HasSubstr("Example: slip trial"));
}

TEST(Environment, VariablesOfNobodyAreNamedWithTheNearest) {
  const char* environment[] = {"SLIP_WORKRES=3",    "SLIP_WORKERS=3", "SLIP_SIZE=2", "PATH=/bin",
                               "SLIP_LOCAL_RANK=0", "SLIP_EMPTY=",    nullptr};
  EXPECT_THAT(
      unknown_variables(environment, {"workers"}),
      ElementsAre(AllOf(HasSubstr("'SLIP_WORKRES'"), HasSubstr("did you mean 'SLIP_WORKERS'?"))));
  EXPECT_THAT(unknown_variables(environment + 1, {"workers"}), IsEmpty());
}

TEST(TrainOptions, ValidateRefusesCombinationsAndFormsWithTheOptionsName) {
  const auto refusal = [](auto change) -> std::string {
    TrainConfig config;
    change(config);
    try {
      validate(config);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal([](TrainConfig&) {}), "");
  setenv("SLIP_CUDA_LIBRARY", "/nowhere", 1);  // as on a machine without a GPU
  EXPECT_THAT(refusal([](TrainConfig& c) { c.transport = "cuda_ipc"; }),
              HasSubstr("cuda_ipc, which is not available"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.target = "speed=1"; }), HasSubstr("accuracy=X"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.target = "accuracy=2"; }), HasSubstr("from 0 to 1"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.target = "accuracy=x"; }), HasSubstr("--target"));
  for (const char* target :
       {"loss=1,stop=no", "loss=1,stop", "loss=1,go=on", "loss=1,stop=true,x"}) {
    EXPECT_THAT(refusal([=](TrainConfig& c) { c.target = target; }), HasSubstr("with stop=false"));
  }
  EXPECT_THAT(refusal([](TrainConfig& c) { c.slow = {"rank=1,x=2"}; }), HasSubstr("--compute"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.link = "rate=fast"; }), HasSubstr("--link"));
  for (const char* transport : {"sim", "threads", "shm"}) {
    EXPECT_EQ(refusal([=](TrainConfig& c) {
                c.transport = transport, c.link = "rate=1mbit", c.slow_link = {"rank=1,x=2"};
              }),
              "");
  }
  EXPECT_THAT(refusal([](TrainConfig& c) { c.slow_link = {"rank=1,x=2"}; }),
              HasSubstr("--slow-link needs --link"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.links = "/nowhere/links"; }),
              HasSubstr("--links /nowhere/links"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.transport = "sim", c.seconds = 1; }),
              HasSubstr("--compute"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.drop = "p=2"; }), HasSubstr("--drop"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.slow_link = {"rank=99,x=2"}; }),
              HasSubstr("--slow-link"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.workers = 2, c.hosts = 3; }),
              HasSubstr("--hosts is 3"));
  EXPECT_THAT(refusal([](TrainConfig& c) { c.workers = 4, c.hosts = 3; }),
              HasSubstr("4 workers in blocks of 2 are on 2 hosts"));
}

TEST(TrainOptions, ReportsKeepWhatShapesTheRunAndNotWhereItGoes) {
  TrainConfig config;
  config.task = "none";
  config.report = "/tmp/x.json";
  config.rendezvous = "host:1";
  const auto options = options_for_report(describe(config));
  EXPECT_THAT(options, Contains(Pair("task", "none")));
  EXPECT_THAT(options, Contains(Pair("batch", "32")));
  EXPECT_THAT(options, Contains(Pair("graph", "ring")));
  for (const char* name : {"report", "html", "trace", "save", "rendezvous", "rank", "set", "lr"}) {
    EXPECT_THAT(options, Not(Contains(Pair(name, testing::_)))) << name;
  }
}

struct Outcome {
  int exit_code;
  std::string output;  // stdout and stderr
};

Outcome slip(const std::string& arguments) {
  const std::string command = std::string(SLIP_PROGRAM) + " " + arguments + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  Outcome outcome;
  char buffer[4096];
  while (const std::size_t n = fread(buffer, 1, sizeof buffer, pipe))
    outcome.output.append(buffer, n);
  const int status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

TEST(Program, VersionAndHelpSucceed) {
  EXPECT_EQ(slip("--version").output, "slip 0.1.0\n");
  EXPECT_EQ(slip("train --version").exit_code, 0);
  for (const char* command : {"", "train", "compare", "run", "perf", "info"}) {
    const Outcome outcome = slip(std::string(command) + " --help");
    EXPECT_EQ(outcome.exit_code, 0) << command;
    EXPECT_THAT(outcome.output, HasSubstr("Example: slip")) << command;
  }
}

TEST(Program, BadUsageIsOneLineAndExitsWithTwo) {
  for (const char* arguments :
       {"", "trian", "train --worker 3", "train --workers 0", "train --protocol hopp",
        "train --set max_gpa=3", "train --graph nosuch", "train --report /nowhere/r.json",
        "train --task targets --resume /nowhere/state", "compare", "run -n 2", "run -n 0 -- true",
        "perf", "perf nosuch", "info --what", "info --topology /etc/passwd"}) {
    const Outcome outcome = slip(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments << ": " << outcome.output;
    EXPECT_EQ(std::count(outcome.output.begin(), outcome.output.end(), '\n'), 1) << outcome.output;
    EXPECT_THAT(outcome.output, AllOf(HasSubstr("slip"), HasSubstr("--help)"))) << arguments;
  }
}

std::string read(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

class ProgramWithFiles : public testing::Test {
 protected:
  ProgramWithFiles() : folder_(testing::TempDir() + "slip-cli-" + std::to_string(getpid())) {
    std::filesystem::create_directory(folder_);
  }
  ~ProgramWithFiles() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
};

TEST_F(ProgramWithFiles, OneSeedIsOneReport) {
  const std::string run =
      "train --quiet --transport sim --task quadratic:dim=4 --workers 5 --iterations 30 "
      "--compute 10ms,jitter=0.1 --slow random,x=6,p=1/n --link rate=60mbit,latency=1ms ";
  for (const char* name : {"a", "b"}) {
    const Outcome outcome = slip(run + "--report " + file(name));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_THAT(outcome.output,
                ::testing::MatchesRegex("hop: 30 iterations of 5 workers in [^\n]+\n"));
  }
  EXPECT_EQ(read(file("a")), read(file("b")));
  const std::string other = run + "--seed 2 --report " + file("c");
  ASSERT_EQ(slip(other).exit_code, 0);
  EXPECT_NE(read(file("a")), read(file("c")));
}

TEST_F(ProgramWithFiles, TransportsAgreeOnTheParameters) {
  std::vector<std::string> parameters;
  for (const char* transport : {"sim", "threads", "shm"}) {
    const Outcome outcome =
        slip(std::string("train --quiet --task targets --workers 3 --iterations 5 "
                         "--record-parameters --transport ") +
             transport + " --report " + file("report"));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    const std::string report = read(file("report"));
    const std::size_t at = report.find("\"parameters\"");
    ASSERT_NE(at, report.npos);
    parameters.push_back(report.substr(at));
  }
  EXPECT_EQ(parameters[0], parameters[1]);
  EXPECT_EQ(parameters[0], parameters[2]);
}

TEST_F(ProgramWithFiles, ResumesWhereAnotherRunEnded) {
  const std::string run = "train --quiet --task quadratic:dim=4 --protocol all_reduce --workers 2 ";
  ASSERT_EQ(slip(run + "--iterations 10 --save " + file("state")).exit_code, 0);
  ASSERT_EQ(slip(run + "--iterations 20 --resume " + file("state") + " --save " + file("resumed"))
                .exit_code,
            0);
  ASSERT_EQ(slip(run + "--iterations 20 --save " + file("whole")).exit_code, 0);
  EXPECT_EQ(read(file("resumed")), read(file("whole")));
  const Outcome outcome = slip(run + "--iterations 10 --resume " + file("state"));
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, HasSubstr("has done 10 iterations"));
}

TEST_F(ProgramWithFiles, ComparesProtocolsInOneTableAndOnePage) {
  const Outcome outcome = slip(
      "compare --protocols all_reduce,hop --task targets --transport sim --workers 4 "
      "--iterations 20 --compute 10ms --set hop.max_gap=3 --set backup=1 --html " +
      file("page.html"));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("\nall_reduce "), HasSubstr("\nhop ")));
  EXPECT_THAT(read(file("page.html")), AllOf(HasSubstr("all_reduce"), HasSubstr("<svg")));
  EXPECT_THAT(slip("compare --protocols all_reduce --set backup=1").output,
              HasSubstr("none of all_reduce has this option"));
}

TEST(Program, DryRunPrintsThePlanAndEnds) {
  const Outcome outcome =
      slip("train --dry-run --task targets --workers 6 --graph complete --seconds 1e6");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("6 on shm"), HasSubstr("complete: 30 edges"), HasSubstr("memory")));
}

TEST(Program, ProgressNamesTheSlowestWorkerAndHowFarItIsBehind) {
  const std::string run =
      "train --transport sim --task none --workers 5 --iterations 40 --compute 5ms ";
  const std::string slow = slip(run + "--slow rank=3,x=3").output;
  EXPECT_THAT(slow, HasSubstr("iteration 40/40"));
  EXPECT_THAT(slow, AllOf(HasSubstr("slowest rank 3, 2 behind\n"), Not(HasSubstr("nobody"))));
  EXPECT_THAT(slip(run + "--protocol all_reduce").output, HasSubstr("nobody behind\n"));
}

TEST(Program, ALauncherGivesTheNumberOfWorkers) {
  const std::string train = std::string(SLIP_PROGRAM) + " train --task targets --iterations 5 ";
  const Outcome launched = slip("run -n 3 -- " + train);
  EXPECT_EQ(launched.exit_code, 0);
  EXPECT_THAT(launched.output, HasSubstr("[0] hop: 5 iterations of 3 workers"));
  const Outcome different = slip("run -n 3 -- " + train + "--workers 4");
  EXPECT_EQ(different.exit_code, 1);
  EXPECT_THAT(different.output, HasSubstr("--workers is 4, but the launcher has started 3"));
}

TEST(Program, AFailedWorkerIsReported) {
  const Outcome outcome = slip("run -n 2 -- sh -c 'exit $SLIP_RANK'");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("slip run: rank 1 exited with status 1"));
}

TEST(Program, WarnsOfUnknownVariablesOnce) {
  ASSERT_EQ(setenv("SLIP_WORKRES", "3", 1), 0);
  const Outcome outcome = slip("train --quiet --task targets --workers 3 --iterations 5");
  unsetenv("SLIP_WORKRES");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              HasSubstr("slip: warning: unknown environment variable 'SLIP_WORKRES'; did you mean "
                        "'SLIP_WORKERS'? (ignored)\n"));
  EXPECT_EQ(outcome.output.find("SLIP_WORKRES"), outcome.output.rfind("SLIP_WORKRES"));
}

TEST(Program, InfoSaysWhatIsWrongWithALauncher) {
  ASSERT_EQ(setenv("SLIP_RENDEZVOUS", "nonsense", 1), 0);
  const Outcome outcome = slip("info");
  unsetenv("SLIP_RENDEZVOUS");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("unusable: SLIP_RENDEZVOUS: 'nonsense' is not HOST:PORT"));
}

TEST(Program, InfoNamesTransportsMachineAndPaths) {
  EXPECT_THAT(
      slip("info --workers 3").output,
      AllOf(HasSubstr("shm"), HasSubstr("\n  verbs  "), HasSubstr("membarrier"),
            HasSubstr("packages"), HasSubstr("NUMA nodes"), HasSubstr("Paths of 3 workers")));
  EXPECT_THAT(slip("info --transport ucx").output,
              ::testing::ContainsRegex("0 +1 +ucx +asked for"));
  EXPECT_THAT(slip("info --workers 8 --topology " SLIP_TOPOLOGIES "/two_socket.xml").output,
              AllOf(HasSubstr("packages        2"), HasSubstr("cores           16 usable of 16"),
                    HasSubstr("NIC             mlx5_3 (ib3), package 1, NUMA node 1\n"),
                    HasSubstr("eno1, package 0, NUMA node 0, not used"),
                    HasSubstr("A100 SXM4 40GB], nearest NIC mlx5_2 (PCI switch)"),
                    ::testing::ContainsRegex("7 +14 +14,30 +1 +1 +mlx5_3 +NUMA node\n")));
}

}  // namespace
}  // namespace slip::cli
