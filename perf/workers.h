#pragma once

#include <functional>

#include "slipstream/perf/perf.h"
#include "slipstream/runtime/world.h"

namespace slip::perf {

/// Runs `work(world)` in `options.workers` workers over `options.transport`, on the real clock each
/// bound to a processor. shm, ucx and verbs: the calling process starts copies of itself by its
/// command line, and waits for them; each comes here again and is one worker. Throws Error.
void run_workers(const PerfOptions& options, const std::function<void(World&)>& work);

}  // namespace slip::perf
