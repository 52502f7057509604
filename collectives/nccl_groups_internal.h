#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/collectives/group.h"
#include "slipstream/collectives/staging_internal.h"
#include "slipstream/collectives/windows_internal.h"
#include "slipstream/gpu/nccl_communicator_internal.h"
#include "slipstream/kernels/vector.h"

#pragma GCC visibility push(hidden)

namespace slip::partial_all_reduce {

/// Groups that repeat, averaged by NCCL, which needs a communicator for each.
///
/// Which these are all members know alike without a word, for it follows from the sequence numbers
/// of the group's own operations. A group repeats as long as it is among those of the last `window`
/// numbers. Its first operation is done our own way; so is the second, around which its first
/// member tells the others an id, with which all begin to connect; the third and all later ones are
/// NCCL's. When `window` numbers have gone by without it, it is forgotten and its communicator
/// closed. A member takes each number once at most, and so never knows more than `window` groups.
class NcclGroups {
 public:
  static constexpr std::uint64_t window = 32;

  /// By all workers; waits for them. Throws Error, at all of them alike, where one cannot use NCCL
  /// or several share a GPU.
  NcclGroups(Windows& windows, std::string_view name, int device);
  /// Closes all communicators; waits for peers who have not come as far, but not long.
  ~NcclGroups();
  NcclGroups(const NcclGroups&) = delete;
  NcclGroups& operator=(const NcclGroups&) = delete;

  /// Whether that group, if it is the next, is averaged by NCCL.
  bool averages(const Group& group) { return times(group) > own_times; }

  /// The next operation is of this group. May be called once more for the same.
  void enter(const Group& group);

  // ---- The operation is done our own way: what is to be done before and after it.

  Status begin(const Operation& operation);
  Status end(const Operation& operation);

  // ---- Or by NCCL.

  /// to = the mean of the members' `from`, once this returns; `to` may be `from`.
  Status mean(const Operation& operation, ConstVectorView from, VectorView to);

  /// This worker has failed, and has told its peers: ends what is under way. Nobody's vector is
  /// used any more when it returns, unless NCCL does not end in time.
  void abort();

 private:
  /// So many operations of a group are done our own way; the last one hands an id around.
  static constexpr std::uint64_t own_times = 2;

  struct Known {
    std::vector<int> members;
    std::uint64_t last = 0;                                    // operation
    std::uint64_t times = 0;                                   // that it came
    std::unique_ptr<gpu::NcclCommunicator> communicator = {};  // once its id is known
  };
  /// What was handed to a peer, or by it.
  struct Handed {
    RemoteRegion region;  // the peer's
    std::uint64_t to = 0;
    std::uint64_t from = 0;
  };

  const World& world() const { return windows_.world(); }
  Known* find(const Group& group);
  std::uint64_t times(const Group& group);
  void forget(std::uint64_t sequence);
  bool connects() const { return current_->times == own_times; }
  Status give(const Peer& peer, std::uint64_t sequence);
  Status take(const Peer& peer, std::uint64_t sequence);
  void connect(const Operation& operation);
  Status await(const Operation& operation, std::string_view what);
  Status told(const Status& status) const;

  Windows& windows_;
  const std::string name_;
  const int device_;
  const Duration patience_;
  Region ids_;
  std::vector<Handed> handed_;  // by rank
  std::vector<Known> known_;    // `window` of them at most
  std::vector<std::unique_ptr<gpu::NcclCommunicator>> closing_;
  bool failed_ = false;
  // Of this operation.
  Known* current_ = nullptr;
  gpu::NcclId id_{};
};

}  // namespace slip::partial_all_reduce

#pragma GCC visibility pop
