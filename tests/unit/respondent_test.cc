#include "slipstream/tools/slip/respondent.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string>

#include "slipstream/base/error.h"

namespace slip::cli {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

/// Does as it is told, and counts what it was told since it began.
std::string obey(const std::string& told) {
  static int count = 0;
  ++count;
  if (told == "hang") {
    for (;;) pause();
  }
  if (told == "crash") abort();
  if (told == "exit") _exit(3);
  if (told == "refuse") throw Error(Code::not_supported, "not this");
  if (told == "who") return std::to_string(getpid());
  return std::to_string(count);
}

std::string failure_of(Respondent& whom, const std::string& told, Code code) {
  try {
    whom.ask(told);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "";
}

void expect_no_children() {
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(Respondent, answers_in_a_process_of_its_own_that_remembers) {
  Respondent whom("somebody", obey, 60s);
  const std::string who = whom.ask("who");
  EXPECT_NE(who, std::to_string(getpid()));
  EXPECT_EQ(whom.ask("who"), who);
  EXPECT_EQ(whom.ask("count"), "3");
  EXPECT_EQ(failure_of(whom, "refuse", Code::not_supported), "not this");
  EXPECT_EQ(whom.ask("count"), "5");
}

TEST(Respondent, what_is_long_comes_whole) {
  Respondent whom(
      "somebody", [](const std::string& told) { return told + told; }, 60s);
  const std::string told(10'000, 'a');
  EXPECT_EQ(whom.ask(told), told + told);
}

TEST(Respondent, one_that_hangs_is_killed_and_there_is_another) {
  Respondent whom("somebody", obey, 5s);
  const pid_t who = std::stoi(whom.ask("who"));
  EXPECT_THAT(failure_of(whom, "hang", Code::timeout),
              HasSubstr("somebody did not answer for 5 s and was killed"));
  EXPECT_EQ(kill(who, 0), -1);
  expect_no_children();
  EXPECT_EQ(whom.ask("count"), "1");
}

TEST(Respondent, one_that_crashes_is_told_with_how_and_there_is_another) {
  Respondent whom("somebody", obey, 60s);
  EXPECT_THAT(failure_of(whom, "crash", Code::io), HasSubstr("somebody crashed (Aborted)"));
  EXPECT_THAT(failure_of(whom, "exit", Code::io), HasSubstr("somebody exited with status 3"));
  EXPECT_EQ(whom.ask("count"), "1");
}

TEST(Respondent, none_is_left_behind) {
  { const Respondent unasked("somebody", obey, 60s); }
  expect_no_children();
}

// Killed, it runs no destructor.
TEST(Respondent, ends_with_its_parent) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const Respondent whom("somebody", obey, 60s);
    kill(getpid(), SIGKILL);
  }
  close(ends[1]);
  char none = 0;
  EXPECT_EQ(read(ends[0], &none, 1), 0) << "until nobody has the other end";
  close(ends[0]);
  EXPECT_EQ(waitpid(parent, nullptr, 0), parent);
}

}  // namespace
}  // namespace slip::cli
