#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/collectives/group_generator.h"
#include "slipstream/collectives/service_rings.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// The group generator as a service: rank 0's progress thread runs it, also while that worker
/// computes. Requests come over a ring from every worker; the groups that it forms it writes into
/// the buffers of all their members, one put each, so a worker in whose buffer a group waits asks
/// nobody. Only who averages with whom travels here, never parameters.
///
/// One thread per worker. What rank 0 cannot make sense of ends its world, with the reason.
class GroupService {
 public:
  /// Made by all workers with the same name and options; waits for rank 0. Groups that come ring
  /// `bell`. Throws Error.
  GroupService(const World& world, std::string_view name, const GroupGeneratorOptions& options,
               Bell bell = Bell::worker);
  ~GroupService();
  GroupService(const GroupService&) = delete;
  GroupService& operator=(const GroupService&) = delete;

  /// Bytes of registered memory that it takes at `rank`.
  static std::size_t memory(const GroupGeneratorOptions& options, int rank);

  /// A group, or the word that there will be none, waits in this worker's buffer: a condition to
  /// wait for.
  bool ready() const { return rings_.ready(); }

  /// Takes the next group out of the buffer, which is ready: all of this worker's groups come in
  /// the order in which it must execute them. Without members it means that this worker, which has
  /// left, is in no further group. bad_data if rank 0's message makes no sense.
  Status take(FormedGroup* formed);

  // What is said to rank 0; nobody waits for an answer here.

  /// This worker wants to average.
  Status request();
  /// It has executed the group; the service may put it into others.
  Status done(const Group& group);
  /// It will ask no more. It goes on executing its groups until one without members comes.
  Status leave();

 private:
  class Server;

  Status say(std::uint64_t what, std::uint64_t sequence);
  bool parse(std::span<const std::byte> message, FormedGroup* formed) const;

  const World* world_;
  std::uint64_t last_ = 0;  // the sequence number taken last
  ServiceRings rings_;
  std::unique_ptr<Server> server_;  // rank 0
};

}  // namespace slip
