#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "conformance.h"
#include "slipstream/gpu/device.h"
#include "slipstream/runtime/rendezvous_server.h"
#include "slipstream/runtime/world_internal.h"
#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip::testing {
namespace {

using namespace std::chrono_literals;

/// Before main: the library is chosen when it is first asked for. SLIP_TEST_RDMA=1: the machine's.
[[maybe_unused]] const bool verbs_chosen = [] {
  const bool is_real = std::getenv("SLIP_TEST_RDMA") != nullptr;
  if (SLIP_HAVE_VERBS && !is_real) setenv("SLIP_VERBS_LIBRARY", SLIP_FAKE_VERBS, 0);
  return true;
}();

LaunchOptions launch_options(LaunchKind kind, const RunOptions& options) {
  LaunchOptions result;
  result.kind = kind;
  result.world = options.world;
  result.faults = options.faults;
  return result;
}

auto run_launched(LaunchKind kind) {
  return [kind](int workers, const Work& work, const RunOptions& options) {
    try {
      launch(workers, work, launch_options(kind, options));
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  };
}

/// What runs over UCX's networks `tls`.
RunOptions over_ucx(const RunOptions& options, const std::string& tls) {
  RunOptions result = options;
  result.world.transport = "ucx";
  result.environment = {{"UCX_TLS", tls}};
  return result;
}

RunOptions over_verbs(const RunOptions& options) {
  RunOptions result = options;
  result.world.transport = "verbs";
  return result;
}

/// Over a device that writes what comes at once and in order, where it is the fake one: its words
/// are polled, or by `completion` seen later than what was put behind them.
RunOptions over_ordered_verbs(const RunOptions& options, const char* words) {
  RunOptions result = over_verbs(options);
  result.environment = {{"SLIP_VERBS_WORDS", words}, {"FAKE_VERBS_IN_ORDER", "1"}};
  return result;
}

World join(const RunOptions& options, int rank) {
  // A test's short patience is for what others publish: processes take their time to start.
  WorldOptions patient = options.world;
  patient.join_timeout = std::max<Duration>(patient.join_timeout, 60s);
  auto parts = connect_parts(patient);
  parts->options.join_timeout = options.world.join_timeout;
  if (options.faults) {
    parts->transport =
        std::make_unique<FaultProxy>(std::move(parts->transport), *options.faults, rank,
                                     make_delay_thread(), [w = parts->waiter] { w->wake(); });
  }
  return World(std::move(parts));
}

/// The life of one worker's process, which inherits the test's memory and none of its threads.
int live(int rank, int workers, const std::string& rendezvous, const Work& work,
         const RunOptions& options) {
  setenv("SLIP_RENDEZVOUS", rendezvous.c_str(), 1);
  setenv("SLIP_RENDEZVOUS_SERVER", "launcher", 1);
  setenv("SLIP_RANK", std::to_string(rank).c_str(), 1);
  setenv("SLIP_SIZE", std::to_string(workers).c_str(), 1);
  for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
  try {
    World world = join(options, rank);
    work(world);
  } catch (const std::exception& error) {
    fmt::print("rank {}: {}\n", rank, error.what());
    return 2;
  }
  return ::testing::Test::HasFailure() ? 1 : 0;
}

void run_as_processes(int workers, const Work& work, const RunOptions& options) {
  const std::vector<int> ends = run_processes(workers, work, options);
  for (int rank = 0; rank < workers; ++rank) {
    const int end = ends[static_cast<std::size_t>(rank)];
    EXPECT_EQ(end, 0) << "rank " << rank
                      << (WIFSIGNALED(end) ? " died of signal " : " exited with ")
                      << (WIFSIGNALED(end) ? WTERMSIG(end) : WEXITSTATUS(end));
  }
}

/// Where tests run on two hosts at once, each with every other worker: SLIP_TEST_HOST is 0 or 1,
/// and SLIP_TEST_RENDEZVOUS an address of host 0. Both run the same tests in the same order.
struct TwoHosts {
  int host;
  std::string address;
};
std::optional<TwoHosts> two_hosts() {
  const char* host = std::getenv("SLIP_TEST_HOST");
  const char* address = std::getenv("SLIP_TEST_RENDEZVOUS");
  if (host == nullptr || address == nullptr) return {};
  return TwoHosts{host[0] - '0', address};
}

/// Each world has a port of its own. It is served until this process ends, as nobody here knows
/// when the other host's workers have.
int start_server(const TwoHosts& hosts, int workers) {
  static int port = 7100;
  ++port;
  if (hosts.host != 0 || fork() != 0) return port;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const RendezvousServer server(hosts.address, port, workers);
  for (;;) pause();
}

FaultPlan delays() {
  FaultPlan plan;
  plan.delay_probability = 0.1;
  plan.max_delay = 300us;
  return plan;
}

}  // namespace

std::vector<int> run_processes(int workers, const Work& work, const RunOptions& options) {
  const auto hosts = two_hosts();
  const int served = hosts ? start_server(*hosts, workers) : 0;
  // The workers are forked before there is a thread here (the rendezvous has one), so its port
  // follows through a pipe.
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) throw_errno("pipe");
  std::fflush(nullptr);
  const pid_t parent = getpid();
  std::vector<pid_t> children;
  for (int rank = 0; rank < workers; ++rank) {
    if (hosts && rank % 2 != hosts->host) continue;
    const pid_t child = fork();
    if (child < 0) throw_errno("fork");
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(3);
      close(pipe[1]);
      int port = 0;
      if (read(pipe[0], &port, sizeof port) != sizeof port) _exit(3);
      const std::string address = hosts ? hosts->address : "127.0.0.1";
      const int code = live(rank, workers, fmt::format("{}:{}", address, port), work, options);
      std::fflush(nullptr);
      _exit(code);
    }
    children.push_back(child);
  }
  close(pipe[0]);
  std::optional<RendezvousServer> server;
  if (!hosts) server.emplace("127.0.0.1", 0, workers);
  const int port = hosts ? served : server->port();
  for (std::size_t i = 0; i < children.size(); ++i) {
    if (write(pipe[1], &port, sizeof port) != sizeof port) throw_errno("pipe");
  }
  close(pipe[1]);
  std::vector<int> ends(static_cast<std::size_t>(workers));  // of the other host's workers 0
  for (std::size_t i = 0; i < children.size(); ++i) {
    const std::size_t rank = hosts ? 2 * i + static_cast<std::size_t>(hosts->host) : i;
    waitpid(children[i], &ends[rank], 0);
  }
  return ends;
}

std::vector<Backend> all_backends() {
  const auto threads = run_launched(LaunchKind::threads);
  const auto sim = run_launched(LaunchKind::simulated);
  RunOptions real;
  real.world.wait_timeout = 60s;
  RunOptions delayed = real;
  delayed.faults = delays();
  RunOptions paced = real;
  paced.world.network.link = {1e9, 50us};
  RunOptions linked;
  linked.world.network.link = {1e9, 50us};
  linked.world.network.inner_link = {1e10, 1us};
  linked.world.network.workers_per_host = 2;
  RunOptions linked_delayed = linked;
  linked_delayed.faults = delays();
  std::vector<Backend> all = {
      {"threads", real, threads},
      {"threads_delayed", delayed, threads},
      {"threads_paced", paced, threads},
      {"shm", real, run_as_processes},
      {"shm_delayed", delayed, run_as_processes},
      {"shm_paced", paced, run_as_processes},
      {"sim", {}, sim},
      {"sim_linked", linked, sim},
      {"sim_linked_delayed", linked_delayed, sim},
  };
  if (SLIP_HAVE_VERBS) {
    const std::string missing = verbs_status(verbs_settings_from_environment()).unusable;
    all.push_back({"verbs", over_verbs(real), run_as_processes, missing});
    all.push_back({"verbs_polled", over_ordered_verbs(real, "polled"), run_as_processes, missing});
    all.push_back(
        {"verbs_delayed", over_ordered_verbs(delayed, "completion"), run_as_processes, missing});
  }
  if (!SLIP_HAVE_UCX) return all;
  for (const auto& [name, tls] : {std::pair{"ucx_tcp", "tcp"}, {"ucx_posix", "self,posix"}}) {
    all.push_back({name, over_ucx(real, tls), run_as_processes});
    all.push_back({fmt::format("{}_delayed", name), over_ucx(delayed, tls), run_as_processes});
  }
  return all;
}

namespace {

/// Asked in a process of its own: a driver does not survive a fork.
std::string why_no_gpu(const std::string& driver) {
#ifdef __SANITIZE_THREAD__
  // As a GPU's engine would, it copies what peers may put over meanwhile.
  if (!driver.empty()) return "ThreadSanitizer takes copies of the stand-in for a GPU for races";
#endif
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) throw_errno("pipe");
  const pid_t child = fork();
  if (child < 0) throw_errno("fork");
  if (child == 0) {
    if (!driver.empty()) setenv("SLIP_CUDA_LIBRARY", driver.c_str(), 1);
    const std::string& why = gpu::usable().message();
    _exit(write(pipe[1], why.data(), why.size()) == static_cast<ssize_t>(why.size()) ? 0 : 1);
  }
  close(pipe[1]);
  std::string why;
  char text[256];
  for (ssize_t got = 0; (got = read(pipe[0], text, sizeof text)) > 0;) {
    why.append(text, static_cast<std::size_t>(got));
  }
  close(pipe[0]);
  waitpid(child, nullptr, 0);
  return why;
}

}  // namespace

std::vector<Backend> gpu_backends() {
  const bool is_real = std::getenv("SLIP_TEST_GPU") != nullptr;
  const std::string driver = is_real ? "" : SLIP_FAKE_CUDA;
  const std::string missing = why_no_gpu(driver);
  RunOptions ipc;
  ipc.world.wait_timeout = 60s;
  ipc.world.transport = "cuda_ipc";
  if (!is_real) ipc.environment = {{"SLIP_CUDA_LIBRARY", driver}, {"FAKE_CUDA_DELAY_US", "50"}};
  RunOptions delayed = ipc;
  delayed.faults = delays();
  std::vector<Backend> all = {
      {"cuda_ipc_host", ipc, run_as_processes, missing},
      {"cuda_ipc", ipc, run_as_processes, missing, 0},
      {"cuda_ipc_delayed", delayed, run_as_processes, missing, 0},
  };
  if (!is_real) {  // of which it is not known whether they share memory
    RunOptions by_host = ipc;
    by_host.world.transport = "auto";
    by_host.environment.emplace_back("FAKE_CUDA_IPC", "0");
    all.push_back({"auto_gpu_by_host", by_host, run_as_processes, missing, 0});
  }
  if (SLIP_HAVE_VERBS) {
    const std::string no_device = verbs_status(verbs_settings_from_environment()).unusable;
    for (const bool is_delayed : {false, true}) {
      RunOptions verbs = is_delayed ? delayed : ipc;
      verbs.world.transport = "verbs";
      all.push_back({is_delayed ? "verbs_gpu_delayed" : "verbs_gpu", verbs, run_as_processes,
                     missing.empty() ? no_device : missing, 0});
    }
  }
  if (!SLIP_HAVE_UCX) return all;
  for (const auto& [name, tls] : {std::pair{"ucx_tcp", "tcp"}, {"ucx_posix", "self,posix"}}) {
    for (const bool is_delayed : {false, true}) {
      RunOptions ucx = is_delayed ? delayed : ipc;
      ucx.world.transport = "ucx";
      ucx.environment.emplace_back("UCX_TLS", tls);
      all.push_back({fmt::format("{}_gpu{}", name, is_delayed ? "_delayed" : ""), ucx,
                     run_as_processes, missing, 0});
    }
  }
  return all;
}

std::vector<Backend> backends() {
  std::vector<Backend> all = all_backends();
  std::erase_if(all, [](const Backend& one) { return !one.missing.empty(); });
  return all;
}

std::ostream& operator<<(std::ostream& out, const Backend& backend) { return out << backend.name; }

}  // namespace slip::testing
