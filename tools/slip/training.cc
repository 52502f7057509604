#include "slipstream/tools/slip/training.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <utility>

#include "slipstream/runtime/launch.h"
#include "slipstream/runtime/launcher.h"
#include "slipstream/runtime/process_launcher.h"
#include "slipstream/runtime/tcp_bootstrap.h"
#include "slipstream/tools/slip/machine.h"
#include "slipstream/tools/slip/plan.h"
#include "slipstream/tools/slip/sources.h"
#include "slipstream/tools/slip/stop_on_signal.h"
#include "slipstream/tools/slip/worker.h"

namespace slip::cli {
namespace {

[[noreturn]] void fail(const std::string& line) { throw Error(Code::invalid_argument, line); }

// Where workers outnumber the cores, who spins takes the core from who computes.
WorldOptions world_options(const TrainConfig& config) {
  WorldOptions options;
  options.network = network_of(config);
  options.transport = config.transport;
  if (*config.workers > this_machine().cores) options.max_spin = Duration::zero();
  return options;
}

void publish(const Results& results, const TrainConfig& config) {
  write_results(results, config);
  fmt::print("{}: {}\n", config.protocol, summary(results.report));
}

void run_in_process(const Plan& plan, bool quiet) {
  const TrainConfig& config = plan.config;
  const int workers = *config.workers;
  std::vector<std::atomic<Iteration>> iterations(static_cast<std::size_t>(workers));
  std::optional<Results> results;
  LaunchOptions options;
  options.world = world_options(config);
  if (config.transport == "sim") {
    options.kind = LaunchKind::simulated;
    options.stack_bytes = 1 << 20;  // models call deeply; only touched pages cost memory
    if (plan.has_data) options.compute_threads = this_machine().cores;
  }
  launch(
      workers,
      [&](World& world) {
        const int rank = world.rank();
        WorkerSettings settings;
        settings.show_progress = !quiet;
        settings.stops_on_signal = rank == 0;
        settings.binds = config.bind == "core" && options.kind == LaunchKind::threads;
        auto of_rank = train(world, plan, std::make_unique<LocalBoard>(iterations, rank), settings);
        if (of_rank) results = std::move(of_rank);
      },
      options);
  publish(*results, config);
}

void work_in(World& world, const Plan& plan, bool quiet) {
  WorkerSettings settings;
  settings.show_progress = !quiet;
  settings.binds = plan.config.bind == "core";
  auto results = train(world, plan, std::make_unique<RemoteBoard>(world), settings);
  if (results) publish(*results, plan.config);
}

// Tells the others why this worker fails. False if nobody can be told.
bool tell(const std::optional<World>& world, const Status& reason) {
  if (world) world->fail(reason);
  return world || reason.code() == Code::peer_lost;
}

ExitCode run_as_worker(const Plan& plan, const Launcher& launcher, bool quiet) {
  std::optional<World> world;
  Status reason;
  try {
    world.emplace(World::connect(world_options(plan.config)));
    work_in(*world, plan, quiet);
    return done;
  } catch (const std::exception& error) {
    reason = status_of(error);
  }
  // A launcher says once, for all workers, what the first failure was.
  if (!tell(world, reason) || !launcher.reports_failures()) reason.throw_if_failed();
  return failed;
}

ExitCode run_as_processes(Plan plan, bool quiet, const std::string& log_level) {
  ProcessOptions processes;
  processes.workers = *plan.config.workers;
  processes.prefix_output = false;
  processes.argv = {"/proc/self/exe", "train", "--log-level", log_level};
  if (quiet) processes.argv.push_back("--quiet");
  // The options are resolved, so neither a file nor the environment may add to them.
  processes.argv.insert(processes.argv.end(), {"--config", ""});
  Options options = describe(plan.config);
  for (const std::string& name : options.names()) {
    processes.environment.emplace_back(variable_of(name), "");
  }
  options.remove({"rendezvous", "rank"});  // these come from the launcher
  for (std::string& word : arguments_of(options)) processes.argv.push_back(std::move(word));

  const ProcessResult result = run_processes(processes);
  if (result.interrupted) note_stop_by_signal();
  if (!result.message.empty()) fmt::print(stderr, "slip train: {}\n", result.message);
  return result.exit_code == 0 ? done : failed;
}

// What --rendezvous says becomes what a launcher would have set.
void meet_by_hand(const TrainConfig& config) {
  try {
    parse_endpoint(config.rendezvous);
  } catch (const Error& error) {
    fail(fmt::format("--rendezvous: {}", error.what()));
  }
  const auto is_known = [](const char* ours, const char* of_srun) {
    return std::getenv(ours) != nullptr || std::getenv(of_srun) != nullptr;
  };
  if (!config.workers && !is_known("SLIP_SIZE", "SLURM_STEP_NUM_TASKS")) {
    fail("--rendezvous needs --workers, how many will meet there");
  }
  if (!config.rank && !is_known("SLIP_RANK", "SLURM_PROCID")) {
    fail("--rendezvous needs --rank, this worker's number");
  }
  if (config.rank && config.workers && *config.rank >= *config.workers) {
    fail(fmt::format("--rank is {}; allowed are 0 to {}, as --workers is {}", *config.rank,
                     *config.workers - 1, *config.workers));
  }
  constexpr int keep = 0;  // a launcher knows better
  setenv("SLIP_RENDEZVOUS", config.rendezvous.c_str(), 1);
  if (config.rank) setenv("SLIP_RANK", fmt::format("{}", *config.rank).c_str(), 1);
  if (config.workers) setenv("SLIP_SIZE", fmt::format("{}", *config.workers).c_str(), keep);
}

// Who started this process as one worker of several; null: nobody did. `workers` and `rank` become
// what it says.
std::shared_ptr<Launcher> launcher_of(TrainConfig& config) {
  if (!config.rendezvous.empty()) {
    meet_by_hand(config);
  } else if (config.rank) {
    fail("--rank needs --rendezvous HOST:PORT, where the workers meet");
  }
  auto launcher = find_launcher();
  if (!launcher) return nullptr;
  if (config.workers && *config.workers != launcher->size()) {
    fail(fmt::format("--workers is {}, but the launcher has started {}; leave it out",
                     *config.workers, launcher->size()));
  }
  config.workers = launcher->size();
  config.rank = launcher->rank();
  if (!is_of_processes(config)) {
    fail(
        fmt::format("--transport is '{}', which is one process; allowed with a launcher or "
                    "--rendezvous are auto, shm, ucx, verbs",
                    config.transport));
  }
  return launcher;
}

}  // namespace

std::vector<std::string> arguments_of(const Options& options) {
  std::vector<std::string> arguments;
  for (const Option& option : options.items()) {
    if (option.kind() == OptionKind::flag) {
      arguments.push_back(fmt::format("--{}={}", option.name, option.text()));
    } else if (const std::string text = option.text(); !text.empty()) {
      arguments.insert(arguments.end(), {"--" + option.name, text});
    }
  }
  return arguments;
}

ExitCode run_training(TrainConfig config, bool quiet, const std::string& log_level) {
  const std::shared_ptr<Launcher> launcher = launcher_of(config);
  const Plan plan = make_plan(std::move(config));
  if (plan.config.dry_run) {
    if (plan.config.rank.value_or(0) == 0) fmt::print("{}", describe(plan));
    return done;
  }
  if (launcher) {
    return run_as_worker(plan, *launcher, quiet);
  } else if (is_of_processes(plan.config)) {
    return run_as_processes(plan, quiet, log_level);
  } else {
    run_in_process(plan, quiet);
  }
  return done;
}

}  // namespace slip::cli
