#include "slipstream/runtime/child_process_internal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <utility>

namespace slip {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> list;
  list.reserve(strings.size() + 1);
  for (const std::string& s : strings) list.push_back(const_cast<char*>(s.c_str()));
  list.push_back(nullptr);
  return list;
}

/// Between fork and exec, where only system calls are safe. Returns if something failed.
void become(const ChildOptions& options, char* const* argv, char* const* environment,
            pid_t parent) {
  if (setpgid(0, 0) < 0) return;
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return;
  if (getppid() != parent) _exit(1);  // it died before it could be asked for
  const int standard[] = {options.input, options.output, options.error};
  for (int fd = 0; fd < 3; ++fd) {
    if (standard[fd] != fd && dup2(standard[fd], fd) < 0) return;
  }
  if (sigprocmask(SIG_SETMASK, &options.signal_mask, nullptr) < 0) return;
  execvpe(argv[0], argv, environment);
}

}  // namespace

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("SIG{}", signal);
}

std::string ProcessEnd::describe() const {
  return signal != 0 ? fmt::format("was killed by signal {} ({})", signal, signal_name(signal))
                     : fmt::format("exited with status {}", status);
}

ChildProcess::ChildProcess(const ChildOptions& options) {
  // All that allocates comes before the fork: another thread may hold the allocator's lock.
  const std::vector<char*> argv = pointers(options.argv);
  const std::vector<char*> environment = pointers(options.environment);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) throw_errno("pipe");
  FileDescriptor failure_in(ends[0]), failure_out(ends[1]);

  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw_errno(fmt::format("cannot start '{}': fork", options.argv[0]));
  if (pid_ == 0) {
    become(options, argv.data(), environment.data(), parent);
    const int error = errno;
    [[maybe_unused]] const auto bytes = write(failure_out.get(), &error, sizeof error);
    _exit(127);
  }
  failure_out.reset();

  // A successful exec closes the pipe.
  int error = 0;
  ssize_t bytes;
  do {
    bytes = read(failure_in.get(), &error, sizeof error);
  } while (bytes < 0 && errno == EINTR);
  if (bytes == 0) {
    pidfd_ = FileDescriptor(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    if (pidfd_) return;
    error = errno;
  }
  reap();
  throw Error(Code::invalid_argument,
              fmt::format("cannot start '{}': {}", options.argv[0], strerror(error)));
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0) return;
  signal_group(SIGKILL);
  reap();
}

ProcessEnd ChildProcess::reap() {
  siginfo_t info{};
  const auto wait = [&](int options) {
    while (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | options) < 0 && errno == EINTR) {
    }
  };
  // Until the leader is let go, the group's number belongs to nobody else.
  wait(WNOWAIT);
  signal_group(SIGKILL);
  wait(0);
  pid_ = -1;
  if (info.si_code == CLD_EXITED) return {.status = info.si_status};
  return {.signal = info.si_status};
}

}  // namespace slip
