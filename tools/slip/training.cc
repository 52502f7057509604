#include "slipstream/tools/slip/training.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>
#include <utility>

#include "slipstream/runtime/launch.h"
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

void publish(const Results& results, const TrainConfig& config, bool quiet) {
  write_results(results, config);
  if (!quiet) fmt::print("{}: {}\n", config.protocol, summary(results.report));
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
  publish(*results, config, quiet);
}

void work_in(World& world, const Plan& plan, bool quiet) {
  WorkerSettings settings;
  settings.show_progress = !quiet;
  settings.binds = plan.config.bind == "core";
  auto results = train(world, plan, std::make_unique<RemoteBoard>(world), settings);
  if (results) publish(*results, plan.config, quiet);
}

// Tells the others why this worker fails. False if nobody can be told.
bool tell(const std::optional<World>& world, const Status& reason) {
  if (world) world->fail(reason);
  return world || reason.code() == Code::peer_lost;
}

ExitCode run_as_worker(const Plan& plan, bool quiet) {
  const char* server = std::getenv("SLIP_RENDEZVOUS_SERVER");
  const bool launched = server && std::string_view(server) == "launcher";
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
  if (!tell(world, reason) || !launched) reason.throw_if_failed();
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

// True if this process is one worker of a world that others make; the world's size becomes
// `workers`, and World::connect will find what it needs in the environment.
bool joins_a_world(TrainConfig& config) {
  if (config.rendezvous.empty()) return false;
  const char* launched = std::getenv("SLIP_SIZE");
  if (!launched && !config.workers) fail("--rendezvous needs --workers, how many will meet there");
  if (!config.rank) fail("--rendezvous needs --rank, this worker's number");
  try {
    parse_endpoint(config.rendezvous);
  } catch (const Error& error) {
    fail(fmt::format("--rendezvous: {}", error.what()));
  }
  const std::string asked = config.workers ? fmt::format("{}", *config.workers) : launched;
  if (launched && asked != launched) {
    fail(fmt::format("--workers is {}, but the launcher has started {}; leave it out", asked,
                     launched));
  }
  setenv("SLIP_RENDEZVOUS", config.rendezvous.c_str(), 1);
  setenv("SLIP_RANK", fmt::format("{}", *config.rank).c_str(), 1);
  setenv("SLIP_SIZE", asked.c_str(), 1);
  if (config.workers && *config.rank >= *config.workers) {
    fail(fmt::format("--rank is {}; allowed are 0 to {}, as --workers is {}", *config.rank,
                     *config.workers - 1, *config.workers));
  }
  config.workers = tcp_options_from_environment()->size;
  if (!is_of_processes(config)) {
    fail(
        fmt::format("--transport is '{}', which is one process; allowed with a launcher or "
                    "--rendezvous are auto, shm, ucx, verbs",
                    config.transport));
  }
  return true;
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
  const bool joins = joins_a_world(config);
  const Plan plan = make_plan(std::move(config));
  if (plan.config.dry_run) {
    if (plan.config.rank.value_or(0) == 0) fmt::print("{}", describe(plan));
    return done;
  }
  if (joins) {
    return run_as_worker(plan, quiet);
  } else if (is_of_processes(plan.config)) {
    return run_as_processes(plan, quiet, log_level);
  } else {
    run_in_process(plan, quiet);
  }
  return done;
}

}  // namespace slip::cli
