#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/collectives/group.h"
#include "slipstream/collectives/group_division.h"

namespace slip {

/// How groups come about (Ripples/Prague, ASPLOS'20, section 5).
enum class GroupPolicy {
  /// Every request makes a group of the worker and others at random. It is told to its members once
  /// nobody of it is locked by an earlier one, and locks them all at once.
  random,
  /// The same, but it is told at once and waits in its members' group buffers; a worker whose
  /// buffer is not empty makes none.
  buffer,
  /// Global division: a worker whose buffer is empty has all such workers divided at random.
  division,
  /// The same in two steps, the first between and within hosts, the second within.
  inter_intra,
};

/// How groups are formed; the same at all workers.
struct GroupGeneratorOptions {
  int workers = 1;
  GroupPolicy policy = GroupPolicy::division;
  int group_size = 3;  // at least 2
  /// The slowdown filter of divisions: a worker that has averaged this many times less than the one
  /// who asks is left out, and waited for by nobody. Its own request, when it comes, sets off a
  /// division with whoever is free then.
  std::optional<int> filter = {};
  std::uint64_t seed = 1;
  const Topology* topology = nullptr;  // for inter_intra; outlives the generator
};

/// A group, and what its members must know of it.
struct FormedGroup {
  Group group;
  int initiator = 0;  // the worker whose request made it
};

/// The group generator as pure logic, without any transport. It knows of every worker which groups
/// it is in that it has not executed: its group buffer. All groups have one total order, that of
/// their sequence numbers; every worker executes its own in that order, so no cycle of waits can
/// exist. One thread.
class GroupGenerator {
 public:
  /// Throws Error(invalid_argument).
  explicit GroupGenerator(const GroupGeneratorOptions& options);

  // What the workers say. New groups are appended to `told`, in the order in which their members
  // are to hear of them. bad_data for what no worker can say; then nothing has changed.

  /// `worker` wants to average. With group buffers, one that has a group under way already gets no
  /// other.
  Status request(int worker, std::vector<FormedGroup>* told);
  /// `worker` has executed the group.
  Status done(int worker, std::uint64_t sequence, std::vector<FormedGroup>* told);
  /// `worker` asks no more, and will be in no further group.
  Status leave(int worker);

  /// Has left and executed all its groups: nobody needs it any more.
  bool gone(int worker) const;

  /// The most groups that a worker can have been told of and not have executed, and the size of the
  /// largest one.
  static std::size_t most_told(const GroupGeneratorOptions& options);
  static std::size_t largest_group(const GroupGeneratorOptions& options);

 private:
  struct Worker {
    std::uint64_t last_formed = 0;    // the latest group that it is in
    std::uint64_t last_executed = 0;  // its buffer is empty if this is the same
    std::uint64_t locked_by = 0;      // random: the group that it was told to execute
    std::uint64_t asked_for = 0;      // random: its own group, until it is executed
    std::int64_t averages = 0;
    bool present = true;
  };

  Worker& of(int worker) { return workers_[static_cast<std::size_t>(worker)]; }
  const Worker& of(int worker) const { return workers_[static_cast<std::size_t>(worker)]; }
  bool buffer_empty(const Worker& worker) const {
    return worker.last_formed == worker.last_executed;
  }
  FormedGroup form(std::vector<int> members, int initiator);
  std::vector<int> draw(int initiator);
  std::vector<int> free_workers(int initiator) const;
  void divide_for(int initiator, std::vector<FormedGroup>* told);
  void grant(std::vector<FormedGroup>* told);

  GroupGeneratorOptions options_;
  Random random_;
  std::uint64_t sequence_ = 0;  // of the latest group
  std::uint64_t round_ = 0;     // of inter-intra synchronisation
  std::vector<Worker> workers_;
  std::deque<FormedGroup> pending_;  // random: wait for their members' locks
};

}  // namespace slip
