#include "slipstream/runtime/process_launcher.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/runtime/child_process_internal.h"
#include "slipstream/runtime/posix_internal.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::AnyOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr Duration patience = 30s;

struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) throw_errno("pipe");
    read_end = FileDescriptor(ends[0]);
    write_end = FileDescriptor(ends[1]);
  }

  /// Until nobody holds the other end any more, or `stop` holds of what was read.
  std::string read_until(const std::function<bool(const std::string&)>& stop) {
    std::string text;
    char buffer[65536];
    while (!stop(text)) {
      if (!wait_ready(read_end.get(), POLLIN, deadline_after(patience))) {
        ADD_FAILURE() << "still held open after " << to_seconds(patience) << " s";
        break;
      }
      const ssize_t count = read(read_end.get(), buffer, sizeof buffer);
      if (count <= 0) break;
      text.append(buffer, static_cast<std::size_t>(count));
    }
    return text;
  }

  std::string read_all() {
    return read_until([](const std::string&) { return false; });
  }

  FileDescriptor read_end, write_end;
};

int occurrences(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

/// Every process of a test inherits a pipe; when its other end closes, none of them lives any more.
class ProcessLauncherTest : public testing::Test {
 protected:
  ProcessLauncherTest() { fcntl(life_.write_end.get(), F_SETFD, 0); }

  ~ProcessLauncherTest() override {
    life_.write_end.reset();
    EXPECT_EQ(life_.read_all(), "");
    EXPECT_TRUE(waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD) << "a child is left";
  }

  static ProcessOptions options_for(int workers, std::vector<std::string> arguments) {
    ProcessOptions options;
    options.argv = {SLIP_WORKER_PROGRAM};
    options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
    options.workers = workers;
    options.grace = 200ms;
    return options;
  }

  static ProcessResult run(int workers, std::vector<std::string> arguments) {
    return run_processes(options_for(workers, std::move(arguments)));
  }

 private:
  Pipe life_;
};

/// A launcher in a process of its own, whose output (and its workers') the test reads.
class Launcher {
 public:
  explicit Launcher(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {SLIP_WORKER_PROGRAM, "launch"});
    std::vector<std::string> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
    ChildOptions options{.argv = arguments,
                         .environment = environment,
                         .input = 0,
                         .output = output_.write_end.get(),
                         .error = error_.write_end.get(),
                         .signal_mask = {}};
    sigemptyset(&options.signal_mask);
    process_ = std::make_unique<ChildProcess>(options);
    output_.write_end.reset();
    error_.write_end.reset();
  }

  void wait_until_ready(int workers) {
    output_.read_until(
        [&](const std::string& text) { return occurrences(text, "ready\n") >= workers; });
  }

  /// As far as one can tell: how much a pipe takes depends on the pieces.
  void wait_until_output_is_full() {
    const Time deadline = deadline_after(patience);
    for (int before = 0, now = 0; now == 0 || now != before;) {
      ASSERT_LT(steady_now(), deadline);
      std::this_thread::sleep_for(200ms);
      before = now;
      ASSERT_EQ(ioctl(output_.read_end.get(), FIONREAD, &now), 0);
    }
  }

  void signal(int number) { process_->signal(number); }
  void close_output() { output_.read_end.reset(); }
  std::string rest_of_output() { return output_.read_all(); }
  /// What it says of the run's result.
  std::string result() { return error_.read_all(); }
  ProcessEnd end() { return process_->reap(); }

 private:
  Pipe output_, error_;
  std::unique_ptr<ChildProcess> process_;
};

TEST_F(ProcessLauncherTest, AllWorkersThatExitWithZeroAreASuccess) {
  const ProcessResult result = run(4, {"exit", "0"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.culprit_rank, -1);
  EXPECT_EQ(result.message, "");
}

TEST_F(ProcessLauncherTest, WorkersFindTheirPlaceInTheEnvironment) {
  ProcessOptions options = options_for(2, {"environment"});
  options.environment = {{"OWN", "1"}, {"SLIP_SIZE", "77"}};
  setenv("SLIP_RANK", "66", 1);
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_processes(options).exit_code, 0);
  const std::string output = testing::internal::GetCapturedStdout();
  unsetenv("SLIP_RANK");
  for (int rank = 0; rank < 2; ++rank) {
    for (const std::string& line :
         {fmt::format("SLIP_RANK={}", rank), fmt::format("SLIP_LOCAL_RANK={}", rank),
          std::string("SLIP_SIZE=2"), std::string("SLIP_LOCAL_SIZE=2"),
          std::string("SLIP_RENDEZVOUS_SERVER=launcher"), std::string("OWN=1")}) {
      EXPECT_THAT(output, HasSubstr(fmt::format("[{}] {}\n", rank, line)));
    }
  }
}

TEST_F(ProcessLauncherTest, WorkersMeetAtTheLaunchersRendezvous) {
  EXPECT_EQ(run(4, {"join"}).exit_code, 0);
}

TEST_F(ProcessLauncherTest, EveryLineIsPrefixedAlsoTheLastPartialOneAndLongOnesAreCut) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  EXPECT_EQ(run(2, {"lines"}).exit_code, 0);
  const std::string output = testing::internal::GetCapturedStdout();
  const std::string error = testing::internal::GetCapturedStderr();
  for (const char* prefix : {"[0] ", "[1] "}) {
    EXPECT_EQ(occurrences(output, std::string(prefix) + "first\n"), 1);
    EXPECT_EQ(occurrences(output, std::string(prefix) + "second xxx"), 1);
    EXPECT_EQ(occurrences(error, std::string(prefix) + "error\n"), 1);
    EXPECT_EQ(occurrences(error, std::string(prefix) + "last\n"), 1);
  }
  EXPECT_EQ(std::count(output.begin(), output.end(), 'x'), 2 * 200'000);
  std::size_t begin = 0, longest = 0;
  for (std::size_t end; (end = output.find('\n', begin)) != output.npos; begin = end + 1) {
    EXPECT_THAT(output.substr(begin, 4), AnyOf("[0] ", "[1] "));
    longest = std::max(longest, end - begin);
  }
  EXPECT_EQ(begin, output.size());
  EXPECT_LE(longest, 64u * 1024 + 4);
}

TEST_F(ProcessLauncherTest, NoLineIsLostOrMixedUnderAFloodOfOutput) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(run(3, {"flood"}).exit_code, 0);
  const std::string output = testing::internal::GetCapturedStdout();
  EXPECT_EQ(occurrences(output, fmt::format(" {}\n", std::string(60, 'y'))), 3 * 20'000);
  std::vector<int> next(3, 0);
  for (std::size_t at = 0; at < output.size(); at = output.find('\n', at) + 1) {
    const int rank = output[at + 1] - '0';
    ASSERT_EQ(output.substr(at, 11), fmt::format("[{}] {:06} ", rank, next[rank]++));
  }
}

TEST_F(ProcessLauncherTest, NothingIsLostWhenTheReaderComesLongAfterTheWorkersEnd) {
  Launcher launcher({"1", "fill"});
  launcher.wait_until_output_is_full();
  std::this_thread::sleep_for(1500ms);
  EXPECT_EQ(occurrences(launcher.rest_of_output(), "z\n"), 345);
  EXPECT_TRUE(launcher.end().ok());
}

TEST_F(ProcessLauncherTest, WhatHasEscapedAndHoldsTheOutputIsNotWaitedFor) {
  EXPECT_EQ(run(1, {"escaped", "silent"}).exit_code, 0);
  Launcher launcher({"1", "escaped", "flood"});
  launcher.wait_until_output_is_full();
  std::this_thread::sleep_for(1500ms);
  EXPECT_THAT(launcher.rest_of_output(), StartsWith("[0] more\n"));
  EXPECT_TRUE(launcher.end().ok());
}

TEST_F(ProcessLauncherTest, WithoutPrefixesWorkersWriteToOurOwnOutput) {
  ProcessOptions options = options_for(1, {"environment"});
  options.prefix_output = false;
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_processes(options).exit_code, 0);
  EXPECT_THAT(testing::internal::GetCapturedStdout(), StartsWith("SLIP_RANK=0\n"));
}

TEST_F(ProcessLauncherTest, WorkersHaveAnEmptyInputAndTheProgramsOwnSignalMask) {
  EXPECT_EQ(run(2, {"input"}).exit_code, 0);
  EXPECT_EQ(run(2, {"signals"}).exit_code, 0);
}

TEST_F(ProcessLauncherTest, TheCallersSignalMaskAndHandlersAreAsBefore) {
  sigset_t before, after;
  pthread_sigmask(SIG_BLOCK, nullptr, &before);
  run(1, {"exit", "0"});
  pthread_sigmask(SIG_BLOCK, nullptr, &after);
  for (int number = 1; number < NSIG; ++number) {
    EXPECT_EQ(sigismember(&before, number), sigismember(&after, number)) << number;
  }
  for (const int number : {SIGINT, SIGTERM, SIGPIPE, SIGCHLD}) {
    struct sigaction action;
    sigaction(number, nullptr, &action);
    EXPECT_EQ(action.sa_handler, SIG_DFL) << number;
  }
}

TEST_F(ProcessLauncherTest, AProgramThatCannotBeStartedIsNamed) {
  for (const char* program : {"/no/such/program", "no-such-program", "/"}) {
    ProcessOptions options;
    options.argv = {program};
    options.workers = 2;
    try {
      run_processes(options);
      ADD_FAILURE() << program;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      EXPECT_THAT(error.what(), AllOf(HasSubstr(fmt::format("cannot start '{}': ", program)),
                                      AnyOf(HasSubstr("No such file"), HasSubstr("Permission"))));
    }
  }
  EXPECT_THROW(run_processes(ProcessOptions{}), Error);
  EXPECT_THROW(run(0, {"exit", "0"}), Error);
}

TEST_F(ProcessLauncherTest, AWorkerThatExitsWithAnErrorEndsTheOthersAndIsNamed) {
  const ProcessResult result = run(4, {"exit-at", "3", "1"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.culprit_rank, 3);
  EXPECT_EQ(result.message, "rank 3 exited with status 1");
}

TEST_F(ProcessLauncherTest, AWorkerThatIsKilledEndsTheOthersAndIsNamed) {
  const ProcessResult result = run(4, {"kill-at", "2"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.culprit_rank, 2);
  EXPECT_EQ(result.message, "rank 2 was killed by signal 9 (SIGKILL)");
}

TEST_F(ProcessLauncherTest, WorkersThatIgnoreTheRequestToEndAreKilled) {
  const ProcessResult result = run(3, {"ignore-term", "1"});
  EXPECT_EQ(result.culprit_rank, 1);
  EXPECT_EQ(result.message, "rank 1 exited with status 5");
}

TEST_F(ProcessLauncherTest, PeersOfAKilledWorkerNoticeByThemselvesAndAreNotBlamed) {
  testing::internal::CaptureStdout();
  ProcessOptions options = options_for(4, {"joined-kill-at", "3"});
  options.grace = patience;
  const ProcessResult result = run_processes(options);
  const std::string output = testing::internal::GetCapturedStdout();
  EXPECT_EQ(result.culprit_rank, 3);
  EXPECT_EQ(result.message, "rank 3 was killed by signal 9 (SIGKILL)");
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_THAT(output, ContainsRegex(fmt::format("\\[{}\\] rendezvous .*rank 3 ", rank)));
  }
}

TEST_F(ProcessLauncherTest, WhoLeftItsPeersFirstIsBlamedAlsoWhenItEndsLast) {
  testing::internal::CaptureStdout();
  ProcessOptions options = options_for(4, {"joined-throw-at", "2"});
  options.grace = patience;
  const ProcessResult result = run_processes(options);
  testing::internal::GetCapturedStdout();
  EXPECT_EQ(result.culprit_rank, 2);
  EXPECT_EQ(result.message, "rank 2 exited with status 7");
}

TEST_F(ProcessLauncherTest, PeersHearOfAWorkerThatNeverJoined) {
  testing::internal::CaptureStdout();
  ProcessOptions options = options_for(3, {"never-join-at", "1"});
  options.grace = patience;
  const ProcessResult result = run_processes(options);
  EXPECT_EQ(result.message, "rank 1 exited with status 4");
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("rank 1 exited with status 4"));
}

TEST_F(ProcessLauncherTest, WhatAWorkerLeavesBehindIsKilled) {
  EXPECT_EQ(run(2, {"helper", "0"}).exit_code, 0);
  EXPECT_EQ(run(2, {"helper", "3"}).exit_code, 1);
}

TEST_F(ProcessLauncherTest, AFirstSignalLetsWorkersStopByThemselvesAndReachesThemOnce) {
  for (const int number : {SIGINT, SIGTERM}) {
    Launcher launcher({"3", "count-terms"});
    launcher.wait_until_ready(3);
    launcher.signal(number);
    const std::string output = launcher.rest_of_output();
    EXPECT_EQ(occurrences(output, "terms 1\n"), 3) << output;
    EXPECT_EQ(launcher.result(), "result 0 -1 \n");
    EXPECT_TRUE(launcher.end().ok());
  }
}

TEST_F(ProcessLauncherTest, WorkersThatDieOfTheFirstSignalAreNotBlamed) {
  Launcher launcher({"3", "sleep"});
  launcher.wait_until_ready(3);
  launcher.signal(SIGTERM);
  EXPECT_EQ(launcher.result(), "result 1 -1 SIGTERM ended the run before the workers were done\n");
  EXPECT_EQ(launcher.end().status, 1);
}

TEST_F(ProcessLauncherTest, AWorkerThatFailsWhileStoppingIsNamed) {
  Launcher launcher({"3", "fail-stop-at", "1"});
  launcher.wait_until_ready(3);
  launcher.signal(SIGTERM);
  EXPECT_EQ(launcher.result(), "result 1 1 rank 1 exited with status 5\n");
}

TEST_F(ProcessLauncherTest, ASecondSignalKillsTheWorkers) {
  Launcher launcher({"3", "ignore-term", "-1"});
  launcher.wait_until_ready(3);
  launcher.signal(SIGINT);
  launcher.signal(SIGTERM);
  EXPECT_THAT(launcher.result(), StartsWith("result 1 -1 a second SIG"));
  EXPECT_EQ(launcher.end().status, 1);
}

TEST_F(ProcessLauncherTest, TheWorkersDieWithTheirLauncher) {
  Launcher launcher({"3", "ignore-term", "-1"});
  launcher.wait_until_ready(3);
  launcher.signal(SIGKILL);
  EXPECT_EQ(launcher.end().signal, SIGKILL);
  launcher.rest_of_output();
}

TEST_F(ProcessLauncherTest, WhenNobodyReadsTheOutputTheWorkersAreAskedToStop) {
  Launcher launcher({"2", "flood-for-ever"});
  launcher.wait_until_ready(2);
  launcher.close_output();
  EXPECT_EQ(launcher.result(),
            "result 1 -1 a closed output ended the run before the workers were done\n");
  EXPECT_EQ(launcher.end().status, 1);
}

TEST_F(ProcessLauncherTest, AReaderThatIsStuckDoesNotKeepSignalsFromTheWorkers) {
  Launcher launcher({"2", "flood-for-ever"});
  launcher.wait_until_output_is_full();
  launcher.signal(SIGTERM);
  launcher.signal(SIGINT);  // the first ends the workers, the second the wait for the reader
  EXPECT_THAT(launcher.result(), AllOf(StartsWith("result 1 -1 "), HasSubstr("SIG")));
  EXPECT_EQ(launcher.end().status, 1);
}

}  // namespace
}  // namespace slip
