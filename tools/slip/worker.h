#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "slipstream/tools/slip/board.h"
#include "slipstream/tools/slip/plan.h"
#include "slipstream/tools/slip/results.h"

namespace slip::cli {

/// How a worker's process treats it, whatever it trains.
struct WorkerSettings {
  bool show_progress = true;    // at rank 0
  bool stops_on_signal = true;  // SIGINT and SIGTERM end the run at an agreed iteration
  bool binds = false;           // to a core of its own
};

/// One worker's part in the run, from its first iteration to the goodbye. Returns the results at
/// rank 0. Throws Error.
std::optional<Results> train(World& world, const Plan& plan, std::unique_ptr<Board> board,
                             const WorkerSettings& settings);

}  // namespace slip::cli
