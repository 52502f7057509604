#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/word.h"
#include "slipstream/collectives/dtur.h"
#include "slipstream/collectives/service_rings.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// How iterations end.
struct ArbiterOptions {
  std::vector<std::pair<int, int>> tree;  // spans the workers; each edge once
  /// Who has not finished when an iteration ends takes part in a later one (true), or its iteration
  /// is void (false).
  bool carry = true;
  /// An iteration that may end after T does so after T (1 + slack), where not all finish before.
  double slack = 0;
  int floor = 1;  // workers that finish in every iteration
};

/// Who took part in an iteration, the same for all workers.
struct Seal {
  Iteration iteration = 0;
  std::vector<std::uint64_t> members;  // a bit for each rank
  bool has(int rank) const { return Dtur::bit(members, rank); }
};

/// DTUR as a service: workers say that they have finished, and rank 0's progress thread ends each
/// iteration by the rule of `Dtur`, once, and tells everybody who has taken part. Clocks are not
/// compared and no two workers can see an iteration differently, as the averaging needs: if one
/// used a neighbour's update and not the other way round, the mean would drift.
///
/// One thread per worker. What rank 0 cannot make sense of ends its world, with the reason.
class Arbiter {
 public:
  /// Made by all workers with the same name and options; waits for rank 0. Throws Error.
  Arbiter(const World& world, std::string_view name, const ArbiterOptions& options);
  ~Arbiter();
  Arbiter(const Arbiter&) = delete;
  Arbiter& operator=(const Arbiter&) = delete;

  /// Bytes of registered memory that it takes at `rank`.
  static std::size_t memory(int workers, int rank);

  /// This worker begins, as all do, with this iteration.
  Status begin(Iteration first);
  /// The first iteration whose seal this worker has not taken.
  Iteration open() const { return open_; }

  /// This worker, which is in iteration `k`, has finished it. With `carry` it takes part in the
  /// first iteration that is open yet, and else in `k` or none. Once for each part that it takes,
  /// or misses.
  Status finished(Iteration k);

  /// A message of rank 0 is here: a condition to wait for.
  bool ready() const { return rings_.ready(); }
  /// Takes the message that is here. If it is a seal, `*sealed` is true: seals come in order, one
  /// for each iteration. bad_data if it makes no sense.
  Status take(Seal* seal, bool* sealed);

  /// Who waits for a seal must call `end_slack` at this time; `never` unless there is slack.
  Time slack_ends() const { return slack_ends_; }
  Status end_slack();

 private:
  class Server;

  Status say(std::uint64_t what, Iteration k);
  bool parse(std::span<const std::byte> message, Seal* seal, bool* sealed);

  const World* world_;
  Iteration open_ = 0;
  std::uint16_t arbiter_ = 0;  // its incarnation; 0: not heard of yet
  Time slack_ends_ = never;
  ServiceRings rings_;
  std::unique_ptr<Server> server_;  // rank 0
};

}  // namespace slip
