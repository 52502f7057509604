#include "slipstream/tools/slip/saved_run.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <span>
#include <utility>

#include "slipstream/collectives/gather.h"

namespace slip::cli {

void save(const World& world, const Trainer& trainer, const std::string& path) {
  Checkpoint all = trainer.checkpoint();
  all.workers = world.size();
  if (const auto own = std::exchange(all.velocities, {}); !own.empty()) {
    gather(world, "slip/momentum", own.front(), [&](int rank, const std::string& velocity) {
      if (velocity.size() != own.front().size()) {
        throw Error(Code::bad_data, fmt::format("the momentum of rank {} is of another size", rank),
                    rank);
      }
      const auto bytes = std::as_bytes(std::span(velocity));
      all.velocities.emplace_back(bytes.begin(), bytes.end());
    });
  }
  if (world.rank() == 0) write_checkpoint(all, path);
}

void resume(const World& world, const Checkpoint& start, const TrainConfig& config,
            Trainer& trainer) {
  trainer.load(start, config.resume);
  const bool fits = start.workers == 0 || start.workers == world.size();
  if (fits || config.momentum == 0 || start.velocities.empty() || world.rank() != 0) return;
  spdlog::warn("--resume {}: saved by {} workers, so the momentum of these {} begins at zero",
               config.resume, start.workers, world.size());
}

}  // namespace slip::cli
