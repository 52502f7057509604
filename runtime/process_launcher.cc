#include "slipstream/runtime/process_launcher.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <string_view>

#include "slipstream/runtime/child_process_internal.h"
#include "slipstream/runtime/line_relay_internal.h"
#include "slipstream/runtime/posix_internal.h"
#include "slipstream/runtime/rendezvous_server.h"
#include "slipstream/runtime/secret_internal.h"

extern char** environ;

namespace slip {
namespace {

using namespace std::chrono_literals;

// How long output may still come from a process that has escaped from its worker's group.
constexpr Duration output_grace = 1s;
// Who has failed has hung up, too, and what it said of why waits at the rendezvous; only a process
// that has escaped with the connection uses this up.
constexpr Duration reason_grace = 10s;
constexpr Duration same_signal = 500ms;

bool is_ignored(int signal) {
  struct sigaction action;
  sigaction(signal, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

/// While it lives, the thread's SIGINT and SIGTERM arrive at a descriptor, and SIGPIPE nowhere.
class SignalGuard {
 public:
  SignalGuard() {
    sigemptyset(&stops_);
    for (const int signal : {SIGINT, SIGTERM}) {
      if (!is_ignored(signal)) sigaddset(&stops_, signal);
    }
    sigset_t blocked = stops_;
    sigaddset(&blocked, SIGPIPE);
    fd_ = checked(signalfd(-1, &stops_, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd");
    pthread_sigmask(SIG_BLOCK, &blocked, &before_);
  }
  ~SignalGuard() {
    if (sigismember(&before_, SIGPIPE) == 0) {
      sigset_t pipe;
      sigemptyset(&pipe);
      sigaddset(&pipe, SIGPIPE);
      const timespec at_once{};
      sigtimedwait(&pipe, nullptr, &at_once);
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  const FileDescriptor& fd() const { return fd_; }
  const sigset_t& before() const { return before_; }

  /// The next signal, or 0.
  int take() const {
    signalfd_siginfo info;
    return read(fd_.get(), &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo)
                                                              : 0;
  }

 private:
  sigset_t stops_, before_;
  FileDescriptor fd_;
};

std::vector<std::string> environment_with(
    const std::vector<std::pair<std::string, std::string>>& added) {
  const auto is_replaced = [&](std::string_view entry) {
    return std::any_of(added.begin(), added.end(), [&](const auto& variable) {
      return entry.substr(0, entry.find('=')) == variable.first;
    });
  };
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!is_replaced(*entry)) all.push_back(*entry);
  }
  for (const auto& [name, value] : added) all.push_back(name + "=" + value);
  return all;
}

class Run {
 public:
  explicit Run(const ProcessOptions& options)
      : options_(options), server_("127.0.0.1", 0, options.workers, -1, secret_) {
    for (int rank = 0; rank < options_.workers; ++rank) start(rank);
  }

  ProcessResult wait() {
    std::vector<pollfd> entries;
    while (running_ > 0 || relay_.has_sources() || !relay_.flushed()) {
      entries = {{signals_.fd().get(), POLLIN, 0}, {ends_.get(), POLLIN, 0}};
      relay_.add_to(entries);
      if (poll(entries.data(), entries.size(), poll_milliseconds(deadline_)) < 0) {
        if (errno == EINTR) continue;
        throw_errno("poll");
      }
      relay_.handle(entries);
      if (relay_.broken()) stop("a closed output");
      while (const int signal = signals_.take()) {
        if (stop_reason_.empty()) {
          stop(signal_name(signal));
        } else if (signal_name(signal) != stop_reason_ || steady_now() >= second_from_) {
          kill_all(signal_name(signal));
        }
      }
      take_ends();
      if (steady_now() >= deadline_) next_step();
    }
    if (first_failed_ >= 0) await_reasons();
    ProcessResult result = this->result();
    result.interrupted = !stop_reason_.empty();
    return result;
  }

 private:
  /// They have all ended; what they said of why may still be on its way. A signal ends the wait.
  void await_reasons() {
    const Time deadline = deadline_after(reason_grace);
    while (!server_.wait_until_empty(100ms) && steady_now() < deadline) {
      if (signals_.take() != 0) break;
    }
  }

  enum class Step { run, terminate, kill, end_output };

  struct Worker {
    std::unique_ptr<ChildProcess> process;
    std::optional<ProcessEnd> end{};
    bool forced = false;  // we have told it to end
  };

  void start(int rank) {
    auto variables = options_.environment;
    const std::string size = std::to_string(options_.workers);
    for (const auto& [name, value] : std::initializer_list<std::pair<const char*, std::string>>{
             {"SLIP_RENDEZVOUS", fmt::format("127.0.0.1:{}", server_.port())},
             {"SLIP_RENDEZVOUS_SERVER", "launcher"},
             {"SLIP_SECRET", secret_},
             {"SLIP_RANK", std::to_string(rank)},
             {"SLIP_SIZE", size},
             {"SLIP_LOCAL_RANK", std::to_string(rank)},
             {"SLIP_LOCAL_SIZE", size}}) {
      std::erase_if(variables, [&](const auto& variable) { return variable.first == name; });
      variables.emplace_back(name, value);
    }
    FileDescriptor output, error;
    if (options_.prefix_output) {
      const std::string prefix = fmt::format("[{}] ", rank);
      output = relay_.add(prefix, 1);
      error = relay_.add(prefix, 2);
    }
    auto process = std::make_unique<ChildProcess>(ChildOptions{
        .argv = options_.argv,
        .environment = environment_with(variables),
        .input = null_.get(),
        .output = output ? output.get() : 1,
        .error = error ? error.get() : 2,
        .signal_mask = signals_.before(),
    });
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = static_cast<std::uint32_t>(rank);
    if (epoll_ctl(ends_.get(), EPOLL_CTL_ADD, process->pidfd().get(), &event) < 0) {
      throw_errno("epoll_ctl");
    }
    workers_.push_back({std::move(process)});
    ++running_;
  }

  // Epoll reports the workers in the order in which they ended.
  void take_ends() {
    std::array<epoll_event, 64> events;
    const int count = epoll_wait(ends_.get(), events.data(), events.size(), 0);
    for (int i = 0; i < count; ++i) {
      const int rank = static_cast<int>(events[i].data.u32);
      Worker& worker = workers_[rank];
      worker.end = worker.process->reap();
      worker.process.reset();
      --running_;
      if (!worker.end->ok()) failed(rank, *worker.end);
    }
    if (running_ == 0 && step_ < Step::end_output) schedule(Step::end_output, output_grace);
  }

  void failed(int rank, const ProcessEnd& end) {
    const bool stopped = end.signal == SIGTERM && !stop_reason_.empty();
    if (first_failed_ < 0 && stopped) stopped_by_force_ = true;
    if (first_failed_ < 0 && !stopped_by_force_) first_failed_ = rank;
    server_.report_lost(rank, fmt::format("rank {} {}", rank, end.describe()));
    if (step_ == Step::run) schedule(Step::terminate, options_.grace);
  }

  /// The first request to stop: the workers are asked once.
  void stop(const std::string& reason) {
    if (!stop_reason_.empty()) return;
    stop_reason_ = reason;
    second_from_ = deadline_after(same_signal);
    for (const Worker& worker : workers_) {
      if (worker.process) worker.process->signal(SIGTERM);
    }
  }

  void kill_all(const std::string& reason) {
    if (running_ > 0) stop_reason_ = "a second " + reason;
    stopped_by_force_ = true;
    signal_groups(SIGKILL);
    relay_.discard();
  }

  void schedule(Step step, Duration after) {
    step_ = step;
    deadline_ = deadline_after(after);
  }

  void next_step() {
    switch (step_) {
      case Step::terminate:
        signal_groups(SIGTERM);
        return schedule(Step::kill, options_.grace);
      case Step::kill:
        signal_groups(SIGKILL);
        break;
      case Step::end_output:
        relay_.end_sources();
        break;
      default:
        break;
    }
    deadline_ = never;
  }

  void signal_groups(int signal) {
    for (Worker& worker : workers_) {
      if (!worker.process) continue;
      worker.process->signal_group(signal);
      worker.forced = true;
    }
  }

  /// Once all have ended. Whoever left its peers first may have taken longer to end than those who
  /// then gave up.
  int culprit() const {
    const int left = first_failed_ < 0 ? -1 : server_.failure().peer();
    return left >= 0 && !workers_[left].end->ok() ? left : first_failed_;
  }

  ProcessResult result() const {
    const int culprit = this->culprit();
    if (culprit < 0 && stopped_by_force_) {
      return failure(-1,
                     fmt::format("{} ended the run before the workers were done", stop_reason_));
    }
    if (culprit < 0) return {};
    const Worker& worker = workers_[culprit];
    const Status reported = server_.failure();
    if (reported.code() == Code::aborted && reported.peer() == culprit) {
      return failure(culprit, reported.message());
    }
    if (!worker.forced && !worker.end->ok()) {
      return failure(culprit, fmt::format("rank {} {}", culprit, worker.end->describe()));
    }
    return failure(culprit,
                   fmt::format("rank {} left its peers without a goodbye and {}", culprit,
                               worker.forced ? "had to be ended" : worker.end->describe()));
  }

  static ProcessResult failure(int culprit, std::string message) {
    ProcessResult result;
    result.exit_code = 1;
    result.culprit_rank = culprit;
    result.message = std::move(message);
    return result;
  }

  const ProcessOptions& options_;
  const SignalGuard signals_;
  const std::string secret_ = new_secret();
  RendezvousServer server_;
  const FileDescriptor null_ =
      above_standard(checked(open("/dev/null", O_RDONLY | O_CLOEXEC), "/dev/null"));
  const FileDescriptor ends_ = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  LineRelay relay_;
  std::vector<Worker> workers_;
  int running_ = 0;

  Step step_ = Step::run;
  Time deadline_ = never;
  Time second_from_ = never;       // the same signal again, from then on, is a second one
  std::string stop_reason_;        // who asked to stop; empty if nobody has
  bool stopped_by_force_ = false;  // workers died of it
  int first_failed_ = -1;
};

}  // namespace

ProcessResult run_processes(const ProcessOptions& options) {
  if (options.argv.empty()) throw Error(Code::invalid_argument, "no program to run");
  if (options.workers < 1) {
    throw Error(Code::invalid_argument,
                fmt::format("{} workers; at least 1 is needed", options.workers));
  }
  if (is_ignored(SIGCHLD)) {
    throw Error(Code::invalid_argument,
                "SIGCHLD is ignored, so nobody can learn how workers end; set it to its default");
  }
  return Run(options).wait();
}

}  // namespace slip
