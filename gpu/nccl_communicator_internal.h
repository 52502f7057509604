#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <thread>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"
#include "slipstream/gpu/stream.h"

#pragma GCC visibility push(hidden)

namespace slip::gpu {

/// By which the members of a communicator find each other.
using NcclId = std::array<std::byte, 128>;

/// One that no other communicator has. Throws Error.
NcclId make_nccl_id();

/// A worker's end of a communicator of NCCL's, and the thread that makes all calls for it: whatever
/// they promise, they may last as long as peers take, or for ever, and who waits for them must be
/// able to give up. All but that thread is for one thread.
class NcclCommunicator {
 public:
  /// Begins to connect, as member `rank` of `size`, each with a GPU of its own. The thread calls
  /// `on_settled` whenever `settled` turns true. `patience` is how long peers may take to close it,
  /// and NCCL to end it.
  NcclCommunicator(int device, const NcclId& id, int size, int rank, Duration patience,
                   std::function<void()> on_settled);
  /// Ends it, unless it is closing, and waits until it is gone. Where NCCL does not return, thread
  /// and communicator are left to themselves.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  /// It has connected and the last mean is done, on the GPU, too; or it has failed.
  bool settled() const;
  /// Of what has settled; a failure is for good.
  Status status() const;

  /// Begins: to = the mean of all members' `from`, of `count` floats or doubles, behind what is
  /// enqueued on the stream. `to` may be `from`. Once all before has settled.
  void mean(const void* from, void* to, std::size_t count, std::size_t element_bytes,
            const Stream& stream);

  /// Nothing is averaged any more: it closes once all members do, or ends where they take too long.
  void close();
  /// Ends what is under way.
  void abort();
  /// It has closed or ended, and uses nobody's memory any more.
  bool gone() const;
  /// Waits for that, for twice the patience at most.
  void await_gone() const;

 private:
  class Calls;
  const std::shared_ptr<Calls> calls_;  // the thread's, too
  const Duration patience_;
  std::thread thread_;
};

}  // namespace slip::gpu

#pragma GCC visibility pop
