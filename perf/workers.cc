#include "slipstream/perf/workers.h"

#include <fmt/format.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "slipstream/perf/bench.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/runtime/launcher.h"
#include "slipstream/runtime/machine.h"
#include "slipstream/runtime/process_launcher.h"
#include "slipstream/trainer/files.h"
#include "slipstream/trainer/heterogeneity.h"

namespace slip::perf {
namespace {

using namespace std::chrono_literals;

/// Who has a processor of its own never sleeps, as is usual for such measurements.
WorldOptions world_options(const PerfOptions& options) {
  WorldOptions world;
  world.transport = options.transport;
  if (static_cast<std::size_t>(options.workers) <= allowed_cpus().size()) world.max_spin = 1s;
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
  WorldOptions of_world = world_options(options);
  of_world.device = device_of(find_launcher()->rank(), options);
  World world = World::connect(of_world);
  world.bind().throw_if_failed();
  work(world);
}

}  // namespace

int resolve_workers(const PerfOptions& options) {
  const auto launcher = find_launcher();
  if (!launcher) return options.asked_workers.value_or(options.workers);
  if (options.asked_workers.value_or(launcher->size()) == launcher->size()) return launcher->size();
  throw Error(Code::invalid_argument,
              fmt::format("--workers is {}, but the launcher has started {}; leave it out",
                          *options.asked_workers, launcher->size()));
}

void run_workers(const PerfOptions& options, const std::function<void(World&)>& work) {
  if (options.transport != "threads" && options.transport != "sim") {
    if (find_launcher()) {
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
  launch_options.world = world_options(options);
  launch(
      options.workers,
      [&](World& world) {
        world.bind().throw_if_failed();
        work(world);
      },
      launch_options);
}

}  // namespace slip::perf
