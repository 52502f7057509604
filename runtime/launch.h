#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "slipstream/runtime/simulator.h"
#include "slipstream/runtime/world.h"
#include "slipstream/transport/fault_proxy.h"

namespace slip {

/// What the workers of one process are.
enum class LaunchKind {
  threads,    // n threads of this process, in real time
  simulated,  // n fibers of this thread, in virtual time
};

/// How `launch` runs its workers.
struct LaunchOptions {
  LaunchKind kind = LaunchKind::threads;
  WorldOptions world;
  std::optional<FaultPlan> faults;

  // Of simulated workers:
  std::size_t stack_bytes = 256 * 1024;
  int compute_threads = 0;        // that run what World::compute is given; 0: the caller's own
  sim::Counts* counts = nullptr;  // where to write what the run came to
  std::vector<sim::Crash> crashes = {};  // workers that die, and when
};

/// Runs `work(world)` as n workers of one process and returns when all have returned. An Error that
/// leaves `work` aborts the others' waits and is thrown again here: the first one, which is the
/// cause of the others.
void launch(int workers, const std::function<void(World&)>& work,
            const LaunchOptions& options = {});

}  // namespace slip
