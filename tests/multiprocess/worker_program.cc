// What the process launcher's tests launch: `worker_program MODE [ARGUMENTS]`. As
// `worker_program launch N MODE ...` it is the launcher itself, for the tests that kill that.

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/runtime/process_launcher.h"
#include "slipstream/runtime/tcp_bootstrap.h"

namespace {

using namespace std::chrono_literals;
using Arguments = std::vector<std::string>;

constexpr slip::Duration patience = 30s;
volatile sig_atomic_t terms = 0;

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int rank() { return std::atoi(variable("SLIP_RANK")); }

// Longer than any test, but not for ever.
int sleep_long() {
  std::this_thread::sleep_for(60s);
  return 99;
}

void say_ready() {
  std::puts("ready");
  std::fflush(stdout);
}

int die_of(int signal) {
  ::signal(signal, SIG_DFL);
  raise(signal);
  return 99;
}

/// Joins, waits for all, and then runs `run`; a failure of the bootstrap is exit status 1.
int joined(const std::function<int(slip::TcpBootstrap&)>& run) {
  try {
    slip::TcpBootstrap bootstrap(slip::tcp_options_from_environment().value());
    bootstrap.fence(patience);
    return run(bootstrap);
  } catch (const slip::Error& error) {
    fmt::print("{}\n", error.what());
    return 1;
  }
}

int wait_for_peers(slip::TcpBootstrap& bootstrap) {
  bootstrap.get("never", patience);
  return 99;
}

int launch(const Arguments& arguments) {
  slip::ProcessOptions options;
  options.argv = {"/proc/self/exe"};
  options.workers = std::stoi(arguments.at(0));
  options.argv.insert(options.argv.end(), arguments.begin() + 1, arguments.end());
  options.grace = 200ms;
  const slip::ProcessResult result = slip::run_processes(options);
  fmt::print(stderr, "result {} {} {}\n", result.exit_code, result.culprit_rank, result.message);
  return result.exit_code;
}

const std::map<std::string, std::function<int(const Arguments&)>> modes = {
    {"launch", launch},
    {"exit", [](const Arguments& a) { return std::stoi(a.at(0)); }},
    {"environment",
     [](const Arguments&) {
       for (const char* name : {"SLIP_RANK", "SLIP_SIZE", "SLIP_LOCAL_RANK", "SLIP_LOCAL_SIZE",
                                "SLIP_RENDEZVOUS_SERVER", "OWN"}) {
         fmt::print("{}={}\n", name, variable(name));
       }
       return 0;
     }},
    {"lines",
     [](const Arguments&) {
       fmt::print("first\nsecond {}", std::string(200'000, 'x'));
       fmt::print(stderr, "error\nlast");
       return 0;
     }},
    {"flood",
     [](const Arguments&) {
       for (int i = 0; i < 20'000; ++i) fmt::print("{:06} {}\n", i, std::string(60, 'y'));
       return 0;
     }},
    {"flood-for-ever",
     [](const Arguments&) {
       say_ready();
       for (;;) std::puts("more");
       return 99;
     }},
    // More than the pipe of the launcher's output takes (64 KiB) and the launcher keeps (256 KiB),
    // but not by a pipe.
    {"fill",
     [](const Arguments&) {
       for (int i = 0; i < 345; ++i) fmt::print("{}\n", std::string(1023, 'z'));
       return 0;
     }},
    {"input", [](const Arguments&) { return std::getchar() == EOF ? 0 : 1; }},
    {"signals",
     [](const Arguments&) {
       sigset_t blocked;
       sigprocmask(SIG_BLOCK, nullptr, &blocked);
       const bool mine = !sigismember(&blocked, SIGTERM) && !sigismember(&blocked, SIGINT) &&
                         !sigismember(&blocked, SIGPIPE);
       return mine ? 0 : 1;
     }},
    {"sleep",
     [](const Arguments&) {
       say_ready();
       return sleep_long();
     }},
    // Rank R exits with S; the others would sleep.
    {"exit-at",
     [](const Arguments& a) {
       return rank() == std::stoi(a.at(0)) ? std::stoi(a.at(1)) : sleep_long();
     }},
    {"kill-at",
     [](const Arguments& a) {
       return rank() == std::stoi(a.at(0)) ? die_of(SIGKILL) : sleep_long();
     }},
    {"ignore-term",
     [](const Arguments& a) {
       signal(SIGTERM, SIG_IGN);
       say_ready();
       return rank() == std::stoi(a.at(0)) ? 5 : sleep_long();
     }},
    // Ends well some time after SIGTERM, saying how many came.
    {"count-terms",
     [](const Arguments&) {
       signal(SIGTERM, [](int) { terms = terms + 1; });
       say_ready();
       while (terms == 0) std::this_thread::sleep_for(5ms);
       std::this_thread::sleep_for(300ms);
       fmt::print("terms {}\n", static_cast<int>(terms));
       return 0;
     }},
    // Rank R fails on SIGTERM; the others survive the first and die of the second.
    {"fail-stop-at",
     [](const Arguments& a) {
       struct sigaction action {};
       action.sa_handler = [](int) { terms = terms + 1; };
       action.sa_flags = SA_RESETHAND;
       sigaction(SIGTERM, &action, nullptr);
       say_ready();
       while (terms == 0) std::this_thread::sleep_for(5ms);
       return rank() == std::stoi(a.at(0)) ? 5 : sleep_long();
     }},
    // Leaves a process behind that ignores SIGTERM.
    {"helper",
     [](const Arguments& a) {
       if (fork() == 0) {
         signal(SIGTERM, SIG_IGN);
         std::exit(sleep_long());
       }
       return std::stoi(a.at(0));
     }},
    // Leaves a process behind that has escaped from its group: it holds the output, or floods it,
    // until nobody reads that any more.
    {"escaped",
     [](const Arguments& a) {
       int ends[2];
       if (pipe(ends) < 0) return 98;
       char byte = 0;
       if (fork() == 0) {
         setsid();
         if (write(ends[1], &byte, 1) < 0) std::_Exit(98);
         while (a.at(0) == "flood" && std::puts("more") >= 0) {
         }
         pollfd output{1, 0, 0};
         poll(&output, 1, -1);
         std::_Exit(0);
       }
       return read(ends[0], &byte, 1) == 1 ? 0 : 98;
     }},
    {"join", [](const Arguments&) { return joined([](auto&) { return 0; }); }},
    // Rank R dies among peers that notice by themselves.
    {"joined-kill-at",
     [](const Arguments& a) {
       return joined([&](auto& bootstrap) {
         return rank() == std::stoi(a.at(0)) ? die_of(SIGKILL) : wait_for_peers(bootstrap);
       });
     }},
    // Rank R leaves its peers by an exception, and takes longer to end than they.
    {"joined-throw-at",
     [](const Arguments& a) {
       try {
         return joined([&](auto& bootstrap) {
           if (rank() == std::stoi(a.at(0))) throw std::runtime_error("a failure of the program");
           return wait_for_peers(bootstrap);
         });
       } catch (const std::runtime_error&) {
         std::this_thread::sleep_for(100ms);
         return 7;
       }
     }},
    {"never-join-at",
     [](const Arguments& a) {
       return rank() == std::stoi(a.at(0)) ? 4 : joined([](auto&) { return 0; });
     }},
};

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argv + 2, argv + argc);
  return modes.at(argv[1])(arguments);
}
