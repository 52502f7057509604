#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/kernels/vector.h"
#include "slipstream/tools/slip/train_config.h"
#include "slipstream/trainer/checkpoint.h"
#include "slipstream/trainer/graph.h"
#include "slipstream/trainer/protocol.h"
#include "slipstream/trainer/tasks/task.h"

namespace slip::cli {

/// A run whose open options are resolved, checked as far as possible before any worker starts.
struct Plan {
  TrainConfig config;        // workers, transport, model, weights and lr have values
  Iteration iterations = 0;  // that bound the run; max_iteration: none do
  std::size_t parameters = 0;
  Dtype dtype = Dtype::float32;
  bool has_data = false;  // to partition into batches; gradients take real work then
  std::shared_ptr<const Graph> graph;
  std::shared_ptr<const Checkpoint> start;  // what --resume goes on from
  std::uint64_t memory = 0;                 // bytes of shared memory at all workers together
  std::uint64_t memory_largest = 0;         // at the worker that takes most
  /// For the report: options by name with resolved values, the protocol's included.
  std::vector<std::pair<std::string, std::string>> options;
};

/// Throws Error: invalid_argument for what is not allowed, out_of_memory where the slots cannot
/// fit, and what make_task throws.
Plan make_plan(TrainConfig config);

/// Throws Error(invalid_argument), which names `option`, unless a file can be written to `path`;
/// for runs whose results would have no place to go at their end. Empty: nothing is to be written.
void check_writable(const std::string& path, const char* option);

/// What `--dry-run` prints.
std::string describe(const Plan& plan);

/// `config.protocol` with the options that `config.set` gives it. A key may carry a protocol's
/// name, "hop.backup", and is then for that protocol only. Throws Error(invalid_argument).
std::unique_ptr<ProtocolConfig> protocol_of(const TrainConfig& config);

/// What a protocol is and its options, for help. Throws Error(invalid_argument) for another name.
std::string protocol_help(const std::string& protocol);

std::unique_ptr<Task> task_of(const TrainConfig& config, int rank);

}  // namespace slip::cli
