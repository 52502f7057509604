#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/runtime/remote_ring.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// How large the two rings between a worker and a service are, in bytes; powers of two.
struct ServiceRingSizes {
  std::size_t requests;
  std::size_t told;
};

/// A ring of at least `records` bytes of records: twice that, for room comes back late and messages
/// do not wrap.
std::size_t ring_capacity(std::size_t records);

/// A worker's rings to and from a service that rank 0's progress thread runs for all workers, also
/// while rank 0 computes: requests there, and what the service tells it back. Their messages are
/// the service's own. The rings hold all that may be said and told before either end reads: rank
/// 0's progress thread may be both ends, and cannot wait for itself.
///
/// One thread per worker.
class ServiceRings {
 public:
  /// Made by all workers with the same name and sizes; waits for rank 0. What the service tells
  /// rings `bell`. Throws Error.
  ServiceRings(const World& world, std::string_view name, ServiceRingSizes sizes,
               Bell bell = Bell::worker);

  /// Bytes of registered memory that it takes at `rank`.
  static std::size_t memory(int workers, int rank, ServiceRingSizes sizes);

  /// To the service; waits while the ring is full.
  Status say(std::span<const std::byte> request);

  /// The service has told something: a condition to wait for.
  bool ready() const { return told_->ready(); }
  /// Hands the oldest message that is here to `read`.
  template <class Read>
  Status take(Read&& read) {
    int count = 0;
    return told_->poll(std::forward<Read>(read), 1, &count);
  }

 private:
  friend class ServiceDesk;

  const World* world_;
  std::optional<RingSender> requests_;  // at rank 0 made by its desk
  std::optional<RingReceiver> told_;
};

/// The service's ends of all those rings, at rank 0. Belongs to its progress thread but for the
/// constructor and `open`.
class ServiceDesk {
 public:
  /// Waits for all workers. `own` is rank 0's. Throws Error.
  ServiceDesk(const World& world, std::string_view name, ServiceRingSizes sizes, ServiceRings& own);

  /// From now on every request is handed to `answer`, and `decide`, if any, is called whenever some
  /// have been. What fails ends rank 0's world. It serves until the desk is gone.
  void open(std::function<Status(int rank, std::span<const std::byte> request)> answer,
            std::function<Status()> decide = {});

  /// What a worker is told goes here.
  RingSender& worker(int rank) { return told_[static_cast<std::size_t>(rank)]; }

 private:
  bool poll();

  const World& world_;
  std::vector<RingReceiver> requests_;  // by rank
  std::vector<RingSender> told_;        // by rank
  std::function<Status(int, std::span<const std::byte>)> answer_;
  std::function<Status()> decide_;
  Status status_;
  std::unique_ptr<Progress::Handle> serving_;
};

}  // namespace slip
