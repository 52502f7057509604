#pragma once

#include <memory>
#include <string>

#include "slipstream/base/time.h"
#include "slipstream/runtime/bootstrap.h"

namespace slip {

/// Who started this process as one worker of several, and how they meet. Looked for in this order:
///
///   1. SLIP_RENDEZVOUS is set: `slip run`, `slip train`, or by hand (see tcp_bootstrap.h).
///   2. PMIX_NAMESPACE is set: `srun --mpi=pmix`, OpenMPI's `mpirun`, `prterun`. PMIx says how many
///      there are and carries rank 0's Invitation to the others; from there on they meet by TCP.
///   3. Nobody: a world of one.
///
/// A launcher that says that it started several, but not how they meet (`srun` without PMIx, PMIx
/// where its library is missing), is an Error with the remedy, and not many worlds of one.
class Launcher {
 public:
  virtual ~Launcher() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// "slip run", "PMIx 4.2.2": for `slip info` and messages.
  virtual std::string describe() const = 0;
  /// True if it ends the job, and says so, when a worker fails.
  virtual bool reports_failures() const = 0;

  /// Meets the others; the launcher must outlive what it returns. Throws Error.
  virtual std::unique_ptr<Bootstrap> join(Duration timeout) = 0;
};

/// Why PMIx cannot be used: not built in, or its library cannot be loaded. Empty: it can.
std::string pmix_unavailable();

/// How long to wait for the others: SLIP_JOIN_TIMEOUT, in seconds, goes before what the program
/// says, since whoever starts a job knows how long its hosts take. Throws Error(invalid_argument).
Duration join_timeout(Duration of_the_program);

/// Null for a world of one. A process has one launcher, however often it asks.
std::shared_ptr<Launcher> find_launcher();

}  // namespace slip
