#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/base/function_ref.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/runtime/neighbourhood.h"
#include "slipstream/runtime/world.h"
#include "slipstream/trainer/graph.h"

/// What tests of everything above a transport share: the backends that they run on, the seeds that
/// they draw from, and neighbourhoods out of graphs.
namespace slip::testing {

using Work = std::function<void(World&)>;

struct RunOptions {
  WorldOptions world;
  std::optional<FaultPlan> faults;
  std::vector<std::pair<std::string, std::string>> environment = {};  // of worker processes
};

/// A way to run n workers that put and wait.
struct Backend {
  std::string name;
  RunOptions defaults;
  /// Runs `work(world)` as n workers until all have returned. What leaves `work`, and what it
  /// expects in vain, fails the calling test.
  std::function<void(int workers, const Work& work, const RunOptions& options)> run;
  std::string missing = {};  // why it cannot run here; empty: it can
};

/// Every backend, by itself and behind the fault proxy. A new one is one more entry.
std::vector<Backend> all_backends();
/// Those that can run here, for tests of what stands on them.
std::vector<Backend> backends();

std::ostream& operator<<(std::ostream& out, const Backend& backend);

// ---- Processes.

/// Runs `work(world)` as n processes that meet at a rendezvous, and returns how each ended, as
/// waitpid says. A process whose work throws prints what and ends with 2; one with a failed
/// expectation ends with 1.
std::vector<int> run_processes(int workers, const Work& work, const RunOptions& options);

// ---- Seeds.

/// Calls `body(seed)` for `count` seeds, or as SLIP_TEST_SEED (the first) and SLIP_TEST_SEEDS (how
/// many, but `most` in a test that takes real time) say. Stops at the first that fails the test and
/// prints the command that replays it.
void for_seeds(int count, FunctionRef<void(std::uint64_t)> body,
               std::uint64_t most = std::numeric_limits<std::uint64_t>::max());

// ---- Graphs.

/// Strongly connected and directed: a cycle through all workers in random order and more edges,
/// each with probability `density`.
Graph random_graph(int workers, double density, std::uint64_t seed);

Neighbourhood neighbourhood(const Graph& graph, int rank);

}  // namespace slip::testing
