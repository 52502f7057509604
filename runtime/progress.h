#pragma once

#include <functional>
#include <memory>

#include "slipstream/transport/transport.h"

namespace slip {

/// Drives what must go on while the worker computes: transports that need it, and services on
/// rings that peers write to. On real clocks one parked thread per process; in the simulator,
/// upon delivery.
class Progress {
 public:
  /// A registration; when it is gone, its callback is neither running nor run again.
  class Handle {
   public:
    virtual ~Handle() = default;
  };

  virtual ~Progress() = default;

  /// Calls `poll` whenever a word may have arrived in a Bell::progress region of `transport`, until
  /// it returns false (nothing left). It must not wait.
  virtual std::unique_ptr<Handle> serve(Transport& transport, std::function<bool()> poll) = 0;

  /// Has what is served polled soon, though nothing may have arrived. From any thread.
  virtual void serve_soon() = 0;

  /// Calls `ready` once when `fd` turns readable (a pidfd: the process has ended).
  virtual std::unique_ptr<Handle> watch(int fd, std::function<void()> ready) = 0;
};

/// The progress thread that this process's workers share; made when first asked for.
std::shared_ptr<Progress> progress_thread();

}  // namespace slip
