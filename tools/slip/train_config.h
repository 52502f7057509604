#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/evaluation.h"
#include "slipstream/trainer/heterogeneity.h"
#include "slipstream/transport/sim/network.h"

namespace slip::cli {

/// Every option of `slip train`; fields are called as the options, with underscores. `slip compare`
/// takes the same.
struct TrainConfig {
  // What
  std::string task = "digits";
  std::string model;  // empty: the task's own
  std::string partition = "iid";
  int batch = 32;
  std::optional<double> lr;
  std::string lr_schedule = "constant";
  double momentum = 0;
  double weight_decay = 0;
  std::int64_t evaluate_every = 10;
  std::string evaluate;  // empty: mean
  std::optional<int> evaluate_samples;
  std::uint64_t seed = 1;
  // How
  std::string protocol = "hop";
  std::vector<std::string> set;
  std::string graph = "ring";
  std::string weights;  // empty: what the graph allows
  // Where
  std::optional<int> workers;
  std::optional<int> hosts;  // modelled; empty: see NetworkOptions::workers_per_host
  std::string transport = "auto";
  std::string rendezvous;
  std::optional<int> rank;
  std::string bind = "none";
  // How long
  std::optional<std::int64_t> iterations;
  std::optional<double> epochs;
  std::optional<double> seconds;
  std::string target;
  // Heterogeneity
  std::string compute;
  std::vector<std::string> slow;
  std::string drop;
  std::string link;
  std::string inner_link;
  std::vector<std::string> slow_link;
  std::string links;
  // Out
  std::string report;
  std::string trace;
  std::string html;
  std::string save;
  std::string resume;
  bool record_parameters = false;
  bool dry_run = false;
};

/// How many workers there are where neither `--workers` nor a launcher says.
constexpr int default_workers = 4;
/// What bounds a run that neither `--iterations`, `--epochs` nor `--seconds` bounds.
constexpr std::int64_t default_iterations = 1000;

/// The table of all of them; `config` must stay where it is.
Options describe(TrainConfig& config);

/// Checks what can be checked without protocol, graph and task: the form of `--slow` and the like,
/// and options that exclude each other. Throws Error(invalid_argument).
void validate(const TrainConfig& config);

/// Whether each worker is a process of its own: over every transport but threads and sim.
bool is_of_processes(const TrainConfig& config);

std::optional<Target> parse_target(const std::string& text);
Heterogeneity heterogeneity_of(const TrainConfig& config);
sim::NetworkOptions network_of(const TrainConfig& config);

/// What a report keeps of the options: names and resolved values, without the places to write to
/// and what has no influence on the run. `--set` is left to the protocol, whose options it resolves
/// to.
std::vector<std::pair<std::string, std::string>> options_for_report(const Options& options);

}  // namespace slip::cli
