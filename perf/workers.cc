#include "slipstream/perf/workers.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "slipstream/runtime/launch.h"
#include "slipstream/runtime/process_launcher.h"
#include "slipstream/runtime/tcp_bootstrap.h"
#include "slipstream/trainer/files.h"
#include "slipstream/trainer/heterogeneity.h"

namespace slip::perf {
namespace {

using namespace std::chrono_literals;

std::vector<int> usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    throw_errno("cannot see which processors there are");
  std::vector<int> processors;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) processors.push_back(i);
  }
  return processors;
}

/// Binds the calling thread: rank r to the r-th processor, around again where they run out.
void bind(int rank, const std::vector<int>& processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processors[static_cast<std::size_t>(rank) % processors.size()], &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    throw_errno(fmt::format("rank {}: cannot bind to a processor", rank));
  }
}

/// Who has a processor of its own never sleeps, as is usual for such measurements.
WorldOptions world_options(const PerfOptions& options, const std::vector<int>& processors) {
  WorldOptions world;
  world.transport = options.transport;
  const bool enough = static_cast<std::size_t>(options.workers) <= processors.size();
  if (enough) world.max_spin = 1s;
  return world;
}

std::vector<std::string> own_command_line() {
  const std::string text = read_file("/proc/self/cmdline");
  std::vector<std::string> words;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\0', at);
    words.push_back(text.substr(at, end - at));
    at = end == text.npos ? text.size() : end + 1;
  }
  words.at(0) = fmt::format("/proc/{}/exe", getpid());
  return words;
}

void start_processes(const PerfOptions& options) {
  ProcessOptions processes;
  processes.argv = own_command_line();
  processes.workers = options.workers;
  processes.prefix_output = false;
  const ProcessResult result = run_processes(processes);
  if (result.exit_code != 0) throw Error(Code::aborted, result.message, result.culprit_rank);
}

void run_process(const PerfOptions& options, const std::function<void(World&)>& work) {
  const std::vector<int> processors = usable_processors();
  World world = World::connect(world_options(options, processors));
  if (world.size() != options.workers) {
    throw Error(Code::invalid_argument, fmt::format("--workers is {}; the launcher started {}",
                                                    options.workers, world.size()));
  }
  bind(world.rank(), processors);
  work(world);
}

}  // namespace

void run_workers(const PerfOptions& options, const std::function<void(World&)>& work) {
  if (options.transport != "threads" && options.transport != "sim") {
    if (tcp_options_from_environment()) {
      run_process(options, work);
    } else {
      start_processes(options);
    }
    return;
  }
  LaunchOptions launch_options;
  if (options.transport == "sim") {
    launch_options.kind = LaunchKind::simulated;
    sim::NetworkOptions& network = launch_options.world.network;
    if (!options.link.empty()) network.link = parse_link(options.link, "--link");
    if (!options.inner_link.empty()) {
      network.inner_link = parse_link(options.inner_link, "--inner-link");
    }
    if (options.hosts > 0) {
      network.workers_per_host = (options.workers + options.hosts - 1) / options.hosts;
    }
    launch(options.workers, work, launch_options);
    return;
  }
  const std::vector<int> processors = usable_processors();
  launch_options.world = world_options(options, processors);
  launch(
      options.workers,
      [&](World& world) {
        bind(world.rank(), processors);
        work(world);
      },
      launch_options);
}

}  // namespace slip::perf
