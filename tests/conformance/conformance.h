#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
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
  int device = gpu::host;    // whose memory regions are
};

/// Every backend, by itself and behind the fault proxy. A new one is one more entry.
std::vector<Backend> all_backends();
/// Those that can run here, for tests of what stands on them.
std::vector<Backend> backends();
/// Those with memory of a GPU, a fake one (tests/gpu/fake_cuda) or with SLIP_TEST_GPU=1
/// the machine's.
std::vector<Backend> gpu_backends();

std::ostream& operator<<(std::ostream& out, const Backend& backend);

// ---- Memory that may be a GPU's.

/// Payloads of the host, in memory that regions of `device` take them from.
class Payloads {
 public:
  explicit Payloads(int device) : device_(device) {}
  /// Valid until the next call, for what is put on this thread's stream.
  const void* at(const void* data, std::size_t bytes);

 private:
  int device_;
  std::size_t bytes_ = 0;
  std::shared_ptr<std::byte> memory_;
};

/// What lies in a region now.
class Contents {
 public:
  Contents(const Region& region, std::size_t offset, std::size_t bytes);
  const std::byte* data() const { return data_; }
  std::byte operator[](std::size_t i) const { return data_[i]; }
  template <class T>
  T as(std::size_t i = 0) const {
    T value;
    std::memcpy(&value, data_ + i * sizeof value, sizeof value);
    return value;
  }

 private:
  const std::byte* data_;
  std::vector<std::byte> copy_;  // of a GPU's memory
};

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
