#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/base/time.h"
#include "slipstream/runtime/bootstrap.h"
#include "slipstream/runtime/clock.h"
#include "slipstream/runtime/counters.h"
#include "slipstream/runtime/progress.h"
#include "slipstream/runtime/topology.h"
#include "slipstream/runtime/wait.h"
#include "slipstream/transport/sim/network.h"
#include "slipstream/transport/transport.h"
#include "slipstream/transport/verbs/verbs_settings.h"

namespace slip {

namespace gpu {
class Event;
}

/// How a world is joined, and how long it waits.
struct WorldOptions {
  /// How long to wait for others to join, and for what they publish; SLIP_JOIN_TIMEOUT goes before.
  Duration join_timeout = std::chrono::seconds(30);
  /// How long a wait for peers may last before it is an error. Generous: a straggler is no corpse,
  /// and lost peers are noticed by other means.
  Duration wait_timeout = std::chrono::minutes(10);
  /// How bytes travel between processes: "shm" within a host, "cuda_ipc" within a host, with memory
  /// of GPUs, too, "ucx", "verbs", or "auto": shm within a host, with memory of GPUs where there
  /// are any (by way of the host where they cannot share it), and between hosts verbs where all
  /// have an RDMA device, else ucx. Workers of one process always share memory.
  std::string transport = "auto";
  /// The RDMA device of this worker; by default as SLIP_VERBS_DEVICE and its like say.
  std::optional<VerbsSettings> verbs = {};
  /// The GPU that this worker is going to use, if any: over verbs it takes the RDMA device nearest
  /// to that one, else nearest to its core.
  int device = gpu::host;
  /// Over ucx and verbs: a peer whose progress thread is silent for so long is lost.
  Duration peer_timeout = std::chrono::seconds(10);
  /// Longest busy wait before a worker parks; zero where workers outnumber processors by far.
  Duration max_spin = std::chrono::microseconds(50);
  /// Modelled links, in virtual time and in real time alike (see PacedTransport for what the latter
  /// can know); none by default.
  sim::NetworkOptions network;
  /// Files of hwloc's XML that stand for the machines of modelled hosts, for `topology()`: one for
  /// each host, or one for all. By default nothing is known of these machines.
  std::vector<std::string> machines;
};

/// One worker's place among its peers: who they are, how bytes reach them, and how to wait.
/// Everything above (queues, collectives, protocols) sees only this, so it runs unchanged on every
/// transport and on both clocks. Belongs to the thread that made it, but for `abort` and
/// `wake`.
class World {
 public:
  /// Finds its launcher (`slip run`, srun, mpirun, a rendezvous by hand; see launcher.h), else it
  /// is a world of one. Throws Error.
  static World connect(const WorldOptions& options = {});
  /// The workers that meet by a bootstrap of their own. Throws Error.
  static World connect(std::unique_ptr<Bootstrap> bootstrap, const WorldOptions& options = {});
  /// The workers of an MPI communicator, which all call it and which need not live on afterwards.
  /// Declared for MPI_Comm, and defined in a library of its own, Slipstream::mpi. Throws Error.
  template <class Communicator>
  static World from_mpi(Communicator communicator, const WorldOptions& options = {});

  World(World&&) noexcept;
  World& operator=(World&&) noexcept;
  /// Says goodbye first, unless the world is aborted or an exception is passing through.
  ~World();

  int rank() const;
  int size() const;
  /// Which life of this rank this is; part of every word that it writes.
  std::uint16_t incarnation() const;

  Transport& transport() const;
  /// The transport of what watches a run and is no part of it (snapshots, progress): modelled links
  /// and injected faults are passed by. Without these it is transport().
  Transport& observer() const;
  Bootstrap& bootstrap() const;
  Progress& progress() const;
  const Clock& clock() const;
  Counters& counters() const;
  /// 0, 1, ...: tells apart what is made several times in one world, in the same order by all.
  int next_number() const;
  const WorldOptions& options() const;

  /// Where the workers are, found out when first asked for: on the hosts that `WorldOptions` model
  /// (in virtual time, each on one of its own by default), else on the real ones. Of these the
  /// lowest rank of each host reads its machine and tells the others, so it must ask, too, within
  /// `join_timeout`. The workers of one process share one. Throws Error.
  const Topology& topology() const;
  /// The host of `rank` in `topology()`, which need not be found out for it.
  int host_of(int rank) const;
  /// What carries puts from one worker to another, as `transport` of the options chose it.
  struct Path {
    std::string transport;
    std::string why;
  };
  Path path(int from, int to) const;
  /// Binds the calling thread, and those that it starts, to this worker's core on the real host,
  /// whatever is modelled. Asks as `topology()` does. Not supported in virtual time.
  Status bind() const;

  // ---- Memory by name (set-up; throws Error).

  /// New zeroed memory that peers may write, known to them as `name`. A name is used once. Of a GPU
  /// where `device` says so; this worker's waits then end if that GPU fails.
  Region allocate(std::string_view name, std::size_t bytes, Bell bell = Bell::worker,
                  int device = gpu::host) const;
  /// Waits until `peer` has allocated `name`, and opens it.
  RemoteRegion attach(int peer, std::string_view name) const;
  /// The same for puts through `by`, which is transport() or observer().
  RemoteRegion attach(Transport& by, int peer, std::string_view name) const;

  // ---- Waiting and time.

  Time now() const { return clock().now(); }
  /// The deadline of a wait for peers that begins now.
  Time deadline() const;

  /// Blocks until `condition` holds. It must read only this worker's own memory and clock. `what`
  /// completes "waiting for ..." in the error.
  Status wait_until(FunctionRef<bool()> condition, Time deadline, std::string_view what) const;

  /// Blocks until a GPU has done what `event` marked; `what` it has to do completes "waiting for
  /// ..." in the error. If that takes until deadline(), the world fails: nothing that the GPU still
  /// uses could be freed.
  Status wait_for_gpu(const gpu::Event& event, std::string_view what) const;

  /// Has this worker look again at what it waits for. From any thread.
  void wake() const;

  /// As wait_until for a GPU, without blocking: what is enqueued on gpu::current_stream from now on
  /// begins once the word at `offset` of `region`, which is a GPU's, is `word` or a later one. An
  /// abort ends the wait: see `status`. not_supported where that GPU's streams cannot.
  Status wait_on_stream(const Region& region, std::size_t offset, Word word) const;

  /// Runs `work`; in virtual time, or with a pace set, it lasts as `set_compute_time` says. In
  /// virtual time it may run on another thread, beside that of other workers
  /// (LaunchOptions::compute_threads): it must touch only what is this worker's own.
  void compute(FunctionRef<void()> work) const;
  /// From now on `compute` lasts max(real work, `duration`); in virtual time exactly `duration`.
  void set_compute_time(Duration duration) const;
  /// From now on `compute` ends as soon as the work is done and `until`, a condition as of
  /// `wait_until`, holds: nobody needs the result any more. Empty: never.
  void cut_compute_short(std::function<bool()> until) const;

  // ---- The end.

  /// Ends every wait of this worker with `reason`. From any thread.
  void abort(const Status& reason) const;
  /// This worker gives up, and the others and its launcher are told why: they will name this cause
  /// and not only the loss. If the reason is the loss or failure of a peer, they know it already.
  void fail(const Status& reason) const;
  bool aborted() const;
  /// ok, or why the world was aborted.
  Status status() const;

  /// Waits until every worker has come here (or is lost), so that memory may be unmapped. Called by
  /// the destructor where it was not called before. Throws Error.
  void goodbye() const;

  struct Parts;
  explicit World(std::unique_ptr<Parts> parts);

 private:
  std::unique_ptr<Parts> parts_;
};

}  // namespace slip
