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

/// What a worker has spent in its loop: of its processor (see `train`), and in waiting for peers.
struct Spent {
  Duration cpu{0};
  Duration waited{0};
};

/// Collective, after the loop: rank 0 collects what every worker has to report; the others return
/// nothing of use. The final evaluation is left to the caller. Throws Error.
Results collect_results(const World& world, const Trainer& trainer, const Plan& plan, Spent spent);

/// Writes the files that the plan's options name. Throws Error(io).
void write_results(const Results& results, const TrainConfig& config);

/// One line: how long, how good.
std::string summary(const Report& report);

}  // namespace slip::cli
