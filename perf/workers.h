#pragma once

#include <functional>

#include "slipstream/perf/perf.h"
#include "slipstream/runtime/world.h"

namespace slip::perf {

/// How many workers there are: the launcher's, else `asked_workers`, else `workers`. Throws Error
/// where the launcher has started another number than was asked for.
int resolve_workers(const PerfOptions& options);

/// Runs `work(world)` in `options.workers` workers over `options.transport`, on the real clock each
/// bound to a core. shm, ucx and verbs: the calling process is one worker where a launcher has
/// started it; else it starts copies of itself by its command line, waits for them, and each comes
/// here again. Throws Error.
void run_workers(const PerfOptions& options, const std::function<void(World&)>& work);

}  // namespace slip::perf
