#include "slipstream/tools/slip/plan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string_view>

#include "slipstream/collectives/tree.h"
#include "slipstream/tools/slip/machine.h"
#include "slipstream/trainer/evaluator.h"
#include "slipstream/transport/shm/segment.h"

namespace slip::cli {
namespace {

[[noreturn]] void fail(const std::string& line) { throw Error(Code::invalid_argument, line); }

std::vector<std::string> all_protocols() {
  const auto names = protocol_names();
  return {names.begin(), names.end()};
}

// A file that an option names and that is not there is bad usage.
template <class Make>
auto as_value_of(const char* option, Make&& make) {
  try {
    return make();
  } catch (const Error& error) {
    if (error.code() != Code::not_found) throw;
    const std::string what = error.what();
    fail(what.starts_with(option) ? what : fmt::format("{}: {}", option, what));
  }
}

Iteration iterations_of(const TrainConfig& config, const Task& task) {
  Iteration bound = max_iteration;
  if (config.iterations) bound = static_cast<Iteration>(*config.iterations);
  if (config.epochs) {
    const double epoch = task.iterations_per_epoch();
    if (epoch <= 0)
      fail(fmt::format("--epochs: task {} has no data; use --iterations", config.task));
    const double iterations = std::ceil(*config.epochs * epoch);
    if (iterations < static_cast<double>(bound)) bound = static_cast<Iteration>(iterations);
  }
  const bool unbounded = bound == max_iteration && !config.seconds;
  return unbounded ? static_cast<Iteration>(default_iterations) : bound;
}

// Empty without --resume.
std::shared_ptr<const Checkpoint> start_of(const std::string& path, Iteration iterations) {
  if (path.empty()) return {};
  Checkpoint start = as_value_of("--resume", [&] { return read_checkpoint(path); });
  if (start.iteration < iterations) return std::make_shared<const Checkpoint>(std::move(start));
  fail(fmt::format("--resume {}: has done {} iterations; allowed are --iterations above that", path,
                   start.iteration));
}

// The modelled links as they were given; empty: none.
std::string describe_network(const TrainConfig& config) {
  std::string links;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) links += fmt::format(", {} {}", name, value);
  };
  add("link", config.link);
  add("inner-link", config.inner_link);
  add("links", config.links);
  for (const std::string& item : config.slow_link) add("slow-link", item);
  if (links.empty()) return links;
  return fmt::format("{} hosts{}{}", config.hosts.value_or(*config.workers), links,
                     config.transport == "sim" ? "" : ", by pacing");
}

RunShape shape_of(const Plan& plan, int rank) {
  return {.graph = *plan.graph,
          .rank = rank,
          .parameters = plan.parameters,
          .dtype = plan.dtype,
          .iterations = plan.iterations,
          .simulated = plan.config.transport == "sim",
          .lossy = heterogeneity_of(plan.config).drops_any()};
}

void measure(const ProtocolConfig& protocol, Plan& plan) {
  const auto workers = static_cast<std::uint64_t>(*plan.config.workers);
  for (int rank = 0; rank < plan.graph->size(); ++rank) {
    std::uint64_t bytes =
        protocol.memory(shape_of(plan, rank)) +
        tree_mean_memory(*plan.config.workers, plan.parameters * size_of(plan.dtype));
    if (rank == 0 && plan.config.evaluate_every > 0) {
      bytes += Evaluator::memory(*plan.config.workers, plan.parameters, plan.dtype);
    }
    plan.memory += bytes;
    plan.memory_largest = std::max(plan.memory_largest, bytes);
  }
  // And each worker's parameters, gradient and velocity, which nobody else sees.
  const std::uint64_t vectors = plan.config.momentum != 0 ? 3 : 2;
  const std::uint64_t all = plan.memory + workers * vectors * plan.parameters * size_of(plan.dtype);
  const std::uint64_t available = shm::available_memory();
  if (all > available) {
    throw Error(Code::out_of_memory,
                fmt::format("the slots and vectors of {} workers take {}, of which this machine "
                            "has {} available; take fewer workers, a smaller model or a smaller "
                            "max_gap",
                            workers, format_bytes(all), format_bytes(available)));
  }
}

}  // namespace

void check_writable(const std::string& path, const char* option) {
  if (path.empty()) return;
  // A link is written through, wherever it leads.
  if (std::filesystem::is_symlink(path) && access(path.c_str(), W_OK) == 0) return;
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  const bool is_folder = std::filesystem::is_directory(path);
  if (is_folder || access(folder.c_str(), W_OK | X_OK) != 0) {
    fail(
        fmt::format("{} {}: cannot write there; allowed is a file in a folder that is there and "
                    "writable",
                    option, path));
  }
}

std::unique_ptr<ProtocolConfig> protocol_of(const TrainConfig& config) {
  const std::vector<std::string> protocols = all_protocols();
  if (std::find(protocols.begin(), protocols.end(), config.protocol) == protocols.end()) {
    fail("--protocol: " + unknown_name("protocol", config.protocol, protocols));
  }
  auto protocol = make_protocol_config(config.protocol);
  Options options = protocol->options();
  for (const std::string& item : config.set) {
    const std::size_t equals = item.find('=');
    if (equals == item.npos) fail(fmt::format("--set is '{}'; allowed is KEY=VALUE", item));
    std::string key = item.substr(0, equals);
    if (const std::size_t dot = key.find('.'); dot != key.npos) {
      const std::string owner = key.substr(0, dot);
      if (std::find(protocols.begin(), protocols.end(), owner) == protocols.end()) {
        fail(fmt::format("--set {}: {}", item, unknown_name("protocol", owner, protocols)));
      }
      if (owner != config.protocol) {
        // Not for this run, but it must make sense.
        const auto other = make_protocol_config(owner);
        Options others = other->options();
        const std::string other_key = key.substr(dot + 1);
        if (!others.find(other_key)) {
          fail(fmt::format("--set {}: {}", item,
                           unknown_name("option of " + owner, other_key, others.names())));
        }
        others.set(other_key, item.substr(equals + 1), "--set " + item.substr(0, equals));
        continue;
      }
      key = key.substr(dot + 1);
    }
    if (!options.find(key)) {
      fail(fmt::format("--set {}: {}", item,
                       unknown_name("option of " + config.protocol, key, options.names())));
    }
    options.set(key, item.substr(equals + 1), "--set " + item.substr(0, equals));
  }
  return protocol;
}

std::string protocol_help(const std::string& name) {
  const auto protocol = make_protocol_config(name);
  const std::string options = protocol->options().help();
  return fmt::format("\nProtocol {}: {}\n{}", name, protocol->summary(),
                     options.empty() ? "  It has no options.\n" : options);
}

std::unique_ptr<Task> task_of(const TrainConfig& config, int rank) {
  return make_task({.task = config.task,
                    .model = config.model,
                    .partition = config.partition,
                    .batch = config.batch,
                    .seed = config.seed,
                    .rank = rank,
                    .workers = config.workers.value_or(default_workers),
                    .evaluate_samples = config.evaluate_samples});
}

Plan make_plan(TrainConfig config) {
  const int workers = config.workers.value_or(default_workers);
  config.workers = workers;
  // Whom this worker meets elsewhere may be on other hosts.
  if (config.transport == "auto" && !config.rank) config.transport = "shm";
  validate(config);
  for (const auto& [path, option] : {std::pair{&config.report, "--report"},
                                     {&config.trace, "--trace"},
                                     {&config.html, "--html"},
                                     {&config.save, "--save"}}) {
    check_writable(*path, option);
  }
  const auto protocol = protocol_of(config);
  const auto graph = as_value_of(
      "--graph", [&] { return std::make_shared<const Graph>(Graph::make(config.graph, workers)); });
  const Weights weights = graph->resolve(
      config.weights.empty() ? std::nullopt : std::optional(parse_weights(config.weights)));
  config.weights = to_string(weights);
  const auto task = as_value_of("--task", [&] { return task_of(config, 0); });
  config.model = task->model();
  if (!config.lr) config.lr = task->default_learning_rate();

  const Iteration iterations = iterations_of(config, *task);
  auto start = start_of(config.resume, iterations);
  if (iterations != max_iteration) config.iterations = static_cast<std::int64_t>(iterations);

  Plan plan{.config = config,
            .iterations = iterations,
            .parameters = task->parameter_count(),
            .dtype = task->dtype(),
            .has_data = task->iterations_per_epoch() > 0,
            .graph = graph,
            .start = std::move(start),
            .options = {}};
  protocol->validate(shape_of(plan, 0));
  measure(*protocol, plan);
  Options options = describe(plan.config);
  if (!plan.has_data) options.remove({"partition", "batch"});
  plan.options = options_for_report(options);
  for (auto& entry : protocol->options().entries()) plan.options.push_back(std::move(entry));
  return plan;
}

std::string describe(const Plan& plan) {
  const TrainConfig& c = plan.config;
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("{:<10} {}\n", name, value);
  };
  line("workers", fmt::format("{} on {}", *c.workers, c.transport));
  line("task",
       fmt::format("{}: {} parameters of {} bytes", c.task, plan.parameters, size_of(plan.dtype)));
  std::string options;
  for (const auto& [name, value] : protocol_of(c)->options().entries()) {
    options += fmt::format(" {}={}", name, value);
  }
  line("protocol", c.protocol + options);
  line("graph", fmt::format("{}: {} edges, {}; weights {}", c.graph, plan.graph->edge_count(),
                            plan.graph->is_symmetric() ? "symmetric" : "directed", c.weights));
  std::string data;
  if (!c.model.empty()) data += fmt::format(" model={}", c.model);
  if (plan.has_data) data += fmt::format(" partition={} batch={}", c.partition, c.batch);
  line("learning", fmt::format("lr={} lr-schedule={} momentum={} weight-decay={} seed={}{}", *c.lr,
                               c.lr_schedule, c.momentum, c.weight_decay, c.seed, data));
  if (const std::string network = describe_network(c); !network.empty()) line("network", network);
  std::string end;
  if (plan.iterations != max_iteration) end += fmt::format(", {} iterations", plan.iterations);
  if (c.seconds) end += fmt::format(", {} seconds", *c.seconds);
  if (const auto target = parse_target(c.target); target && target->stop) end += ", " + c.target;
  line("ends at", end.substr(2) + (end.find(',', 1) == end.npos ? "" : ", whichever is first"));
  line("memory", fmt::format("{} in slots and buffers of a worker at most, {} in all",
                             format_bytes(plan.memory_largest), format_bytes(plan.memory)));
  return text;
}

}  // namespace slip::cli
