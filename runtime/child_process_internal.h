#pragma once

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "slipstream/runtime/posix_internal.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// How a process ended: its exit status, or the signal that killed it.
struct ProcessEnd {
  int status = 0;
  int signal = 0;

  bool ok() const { return status == 0 && signal == 0; }
  /// "exited with status 1", "was killed by signal 9 (SIGKILL)".
  std::string describe() const;
};

/// "SIGKILL"
std::string signal_name(int signal);

struct ChildOptions {
  std::vector<std::string> argv;
  std::vector<std::string> environment;  // all of it, "NAME=value"
  int input, output, error;              // descriptors, each above 2 or in its own place
  sigset_t signal_mask;
};

/// A running program, the leader of a process group of its own, that does not outlive the thread
/// that started it: the destructor kills and reaps it, and a parent's death kills it too.
class ChildProcess {
 public:
  /// Returns once the program runs; Error(invalid_argument) says why it does not.
  explicit ChildProcess(const ChildOptions& options);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// Readable once the process has ended.
  const FileDescriptor& pidfd() const { return pidfd_; }
  void signal(int number) const { kill(pid_, number); }
  void signal_group(int number) const { kill(-pid_, number); }

  /// Waits for the end, kills what is left of the group, and lets the process go. Called once.
  ProcessEnd reap();

 private:
  pid_t pid_ = -1;  // -1 once reaped
  FileDescriptor pidfd_;
};

}  // namespace slip

#pragma GCC visibility pop
