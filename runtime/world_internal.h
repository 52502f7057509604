#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "slipstream/gpu/side_stream.h"
#include "slipstream/runtime/launcher.h"
#include "slipstream/runtime/topology.h"
#include "slipstream/runtime/world.h"
#include "slipstream/transport/await_stream.h"
#include "slipstream/transport/stream_waits.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// A topology that is made when it is first asked for, but for the hosts, which are known at once.
/// Any thread may ask.
class LazyTopology {
 public:
  LazyTopology(std::function<int(int)> host_of, std::function<Topology()> make)
      : host_of_(std::move(host_of)), make_(std::move(make)) {}

  int host_of(int rank) const { return host_of_(rank); }

  const Topology& get() {
    const std::lock_guard lock(mutex_);
    if (!topology_) topology_.emplace(make_());
    return *topology_;
  }

 private:
  const std::function<int(int)> host_of_;
  std::mutex mutex_;  // guards all below
  std::function<Topology()> make_;
  std::optional<Topology> topology_;
};

/// The real hosts, each with the machine that its lowest rank reads and publishes. `members` are
/// the same at all workers, and all call it.
Topology gather_topology(Bootstrap& bootstrap, const std::vector<Topology::Member>& members,
                         Duration timeout);

/// This host, where all of a world's workers are threads that may use the calling thread's CPUs.
std::shared_ptr<LazyTopology> local_topology(int workers);

/// The hosts that `options` model; `real` where they model none.
std::shared_ptr<LazyTopology> modelled_or(std::shared_ptr<LazyTopology> real, int workers,
                                          const WorldOptions& options);

/// What a World is put together from, in the order in which it must be destroyed (last first).
struct __attribute__((visibility("hidden"))) World::Parts {
  WorldOptions options;
  std::shared_ptr<const Clock> clock;
  std::shared_ptr<AbortToken> abort;
  std::unique_ptr<Transport> transport;
  Transport* observer = nullptr;  // within `transport`, or own_observer
  std::unique_ptr<Transport> own_observer;
  Path near;  // between workers of one host; empty in a world of one process
  Path far;   // between hosts
  std::shared_ptr<Waiter> waiter;
  std::shared_ptr<Launcher> launcher;  // of `bootstrap`, if it has one
  std::unique_ptr<Bootstrap> bootstrap;
  /// Null until somebody needs it, but in the simulator.
  std::shared_ptr<Progress> progress;
  std::unique_ptr<Progress::Handle> driving;               // of a transport that needs it
  std::vector<std::unique_ptr<Progress::Handle>> watches;  // of peers' processes and connections
  std::unique_ptr<Progress::Handle> gpu_watch;             // once there is memory of a GPU
  std::optional<gpu::SideStream> waking;                   // of `waiter`, once it waits for a GPU
  std::shared_ptr<StreamWaits> stream_waits;               // once a stream waits
  std::shared_ptr<Counters> counters;
  std::shared_ptr<LazyTopology> real_topology;  // null in the simulator
  std::shared_ptr<LazyTopology> topology;
  Duration compute_time{0};
  std::function<bool()> compute_until;  // empty: nothing cuts it short
  int next_number = 0;
  bool said_goodbye = false;

  /// What ends a put's wait for a stream. Once there is `abort`.
  StreamLimits stream_limits() const {
    return {options.wait_timeout, [token = abort] { return token->reason(); }};
  }
};

/// World::connect, before it becomes a World.
std::unique_ptr<World::Parts> connect_parts(const WorldOptions& options);

/// Counters in a memory file of this process.
std::shared_ptr<Counters> make_counters(int rank);

}  // namespace slip

#pragma GCC visibility pop
