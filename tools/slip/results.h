#pragma once

#include <vector>

#include "slipstream/runtime/world.h"
#include "slipstream/tools/slip/plan.h"
#include "slipstream/trainer/report.h"
#include "slipstream/trainer/trace.h"
#include "slipstream/trainer/trainer.h"

namespace slip::cli {

/// What a run leaves behind: at rank 0, of all workers.
struct Results {
  Report report;
  std::vector<Span> spans;  // empty unless `--trace` or `--html` asked for them
};

/// Collective, after the loop: rank 0 collects what every worker has to report; the others return
/// nothing of use. `cpu` is the time that this worker's thread has computed. The final
/// evaluation is left to the caller. Throws Error.
Results collect_results(const World& world, const Trainer& trainer, const Plan& plan, Duration cpu);

/// Writes the files that the plan's options name. Throws Error(io).
void write_results(const Results& results, const TrainConfig& config);

/// One line: how long, how good.
std::string summary(const Report& report);

}  // namespace slip::cli
