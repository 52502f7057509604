#pragma once

#include <functional>
#include <memory>

#include "slipstream/base/time.h"

namespace slip {

/// Runs something later: a thread in real time, an event in virtual time.
class Delayer {
 public:
  virtual ~Delayer() = default;
  /// Since it was made, or of the simulator.
  virtual Time now() const = 0;
  virtual void after(Duration delay, std::function<void()> action) = 0;
};

/// A thread of its own, by steady_clock; actions of one time run in the order in which they were
/// handed over. Its destructor runs what is left at once.
std::unique_ptr<Delayer> make_delay_thread();

}  // namespace slip
