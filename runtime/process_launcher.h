#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"

namespace slip {

/// What is started, and how often.
struct ProcessOptions {
  /// The program, looked up in PATH, and its arguments.
  std::vector<std::string> argv;
  int workers = 1;
  /// Each line of output begins with "[rank] "; else the workers write to our own output.
  bool prefix_output = true;
  /// On top of what the launcher itself has in its environment.
  std::vector<std::pair<std::string, std::string>> environment;
  /// After a worker has failed: how long the others have to notice and end, and then once more
  /// between SIGTERM and SIGKILL.
  Duration grace = std::chrono::seconds(5);
};

/// How a world of processes ended.
struct ProcessResult {
  int exit_code = 0;         // 0 if every worker exited with 0, else 1
  int culprit_rank = -1;     // the worker that failed first
  std::string message;       // one line, its own words if it has said why; empty if all is well
  bool interrupted = false;  // a signal, or the end of our output's reader, asked for the end
};

/// Runs n worker processes on this host, serves their rendezvous, and returns when all have ended.
///
/// A worker finds in its environment SLIP_RENDEZVOUS (127.0.0.1:PORT), SLIP_RENDEZVOUS_SERVER
/// (launcher), SLIP_SECRET, SLIP_RANK, SLIP_SIZE, SLIP_LOCAL_RANK and SLIP_LOCAL_SIZE; its standard
/// input is empty. It leads a process group: what it has started is killed when it ends. If the
/// launching thread dies, the kernel kills the workers (but not what they have started).
///
/// A first SIGINT or SIGTERM is passed to the workers as SIGTERM, once, for them to stop as they
/// see fit; so is the end of whoever reads our output. A second one kills them, unless it is the
/// same again within half a second: a terminal, a shell and a supervisor may each pass it on. Only
/// this call takes these signals, by blocking them in its thread: other threads of the program must
/// block them too. A signal that the program ignores stays ignored. Throws Error if the program
/// cannot be started; the program must not ignore SIGCHLD.
ProcessResult run_processes(const ProcessOptions& options);

}  // namespace slip
