#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "slipstream/runtime/world.h"

namespace slip {

/// What a World is put together from, in the order in which it must be destroyed (last first).
struct World::Parts {
  WorldOptions options;
  std::shared_ptr<const Clock> clock;
  std::shared_ptr<AbortToken> abort;
  std::unique_ptr<Transport> transport;
  std::shared_ptr<Waiter> waiter;
  std::unique_ptr<Bootstrap> bootstrap;
  /// Null until somebody needs it, but in the simulator.
  std::shared_ptr<Progress> progress;
  std::vector<std::unique_ptr<Progress::Handle>> watches;  // of peers' processes
  std::shared_ptr<Counters> counters;
  Duration compute_time{0};
  int next_number = 0;
  bool said_goodbye = false;
};

/// World::connect, before it becomes a World.
std::unique_ptr<World::Parts> connect_parts(const WorldOptions& options);

/// Counters in a memory file of this process.
std::shared_ptr<Counters> make_counters(int rank);

}  // namespace slip
