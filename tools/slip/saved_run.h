#pragma once

#include <string>

#include "slipstream/runtime/world.h"
#include "slipstream/tools/slip/train_config.h"
#include "slipstream/trainer/checkpoint.h"
#include "slipstream/trainer/trainer.h"

namespace slip::cli {

/// Collective, after Trainer::average: rank 0 writes the mean model and every worker's momentum.
/// Throws Error.
void save(const World& world, const Trainer& trainer, const std::string& path);

/// Before the loop: the trainer goes on from `start`, which `config.resume` held. In a world of
/// another size all begin without momentum, which rank 0 logs as a warning. Throws Error.
void resume(const World& world, const Checkpoint& start, const TrainConfig& config,
            Trainer& trainer);

}  // namespace slip::cli
