#pragma once

#include <signal.h>
#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shared_memory_names.h"
#include "slipstream/base/time.h"
#include "slipstream/runtime/child_process_internal.h"
#include "slipstream/runtime/posix_internal.h"

namespace slip {

/// After this a test takes a program for hung: generous, since the machine may be busy.
constexpr Duration hang = std::chrono::seconds(30);

/// How a run of `slip` ended and what it said.
struct Outcome {
  ProcessEnd end;
  std::string output;
  std::string error;
};

/// A running `slip`, with an empty folder of its own as its current and its temporary one. It and
/// all that it starts carry a mark in their environment, by which they are found.
class SlipProgram {
 public:
  explicit SlipProgram(const std::vector<std::string>& arguments) : SlipProgram({}, arguments) {}
  /// `before`: a program and arguments in front, such as {"unshare", "-m"}.
  SlipProgram(const std::vector<std::string>& before, const std::vector<std::string>& arguments);
  /// Ends what is left.
  ~SlipProgram();
  SlipProgram(const SlipProgram&) = delete;
  SlipProgram& operator=(const SlipProgram&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  void signal(int number) const { process_->signal(number); }
  /// As a terminal does on Ctrl-C.
  void signal_group(int number) const { process_->signal_group(number); }

  /// The process of a worker, once it is there.
  pid_t worker(int rank) const;
  /// False if stdout has not shown `text` by the time that the run should have, or ended without.
  bool wait_for_output(const std::string& text) const;

  /// Readable once it has ended.
  int pidfd() const { return process_->pidfd().get(); }
  /// Waits for the end; a run that hangs is a failure of the test, and is killed.
  Outcome wait(Duration patience = hang);
  /// Of what carries the mark; empty once all have ended, which it waits for.
  std::vector<pid_t> processes_left() const;
  /// Names of what is left in its folder, and of what of ours is new in /dev/shm.
  std::vector<std::string> files_left() const;

 private:
  std::vector<pid_t> processes(const std::optional<int>& rank = {}) const;

  std::string mark_;
  std::filesystem::path folder_;
  SharedMemoryNames shared_memory_{"slip"};
  FileDescriptor output_, error_;
  std::unique_ptr<ChildProcess> process_;
};

/// Runs it to its end.
Outcome run_slip(const std::vector<std::string>& arguments);

/// True for one line, ended as lines are, that begins with "slip".
bool is_one_line(const std::string& text);

}  // namespace slip
