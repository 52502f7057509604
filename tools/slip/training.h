#pragma once

#include <string>
#include <vector>

#include "slipstream/tools/slip/command.h"
#include "slipstream/tools/slip/train_config.h"

namespace slip::cli {

/// Runs one training to its end, as threads or simulated workers of this process, as processes that
/// it starts, or as one worker of a world that a launcher or `--rendezvous` makes. Writes what the
/// options name. `quiet`: no progress and no summary. Throws Error.
ExitCode run_training(TrainConfig config, bool quiet, const std::string& log_level);

/// The command line that gives every option its value of now, the environment notwithstanding.
std::vector<std::string> arguments_of(const Options& options);

}  // namespace slip::cli
