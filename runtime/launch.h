#pragma once

#include <functional>
#include <optional>

#include "slipstream/runtime/world.h"
#include "slipstream/transport/fault_proxy.h"

namespace slip {

enum class LaunchKind {
  threads,    // n threads of this process, in real time
  simulated,  // n fibers of this thread, in virtual time
};

struct LaunchOptions {
  LaunchKind kind = LaunchKind::threads;
  WorldOptions world;
  std::optional<FaultPlan> faults;
  std::size_t stack_bytes = 256 * 1024;  // of a simulated worker
};

/// Runs `work(world)` as n workers of one process and returns when all have returned. An Error that
/// leaves `work` aborts the others' waits and is thrown again here, the first one by rank order of
/// blame: a cause before its consequences.
void launch(int workers, const std::function<void(World&)>& work,
            const LaunchOptions& options = {});

}  // namespace slip
