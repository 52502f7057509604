#pragma once

#include <signal.h>

#include <array>

#include "slipstream/trainer/trainer.h"

namespace slip::cli {

/// While it lives, the first SIGINT or SIGTERM asks the trainer for an agreed end of the run, and
/// the second ends the process as usual. One at a time in a process.
class StopOnSignal {
 public:
  explicit StopOnSignal(Trainer& trainer);
  ~StopOnSignal();
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;

 private:
  static constexpr std::array<int, 2> signals = {SIGINT, SIGTERM};
  std::array<struct sigaction, 2> before_;
};

/// A signal has ended a run of this process, or of the workers that it has started, before its
/// time.
bool stopped_by_signal();
void note_stop_by_signal();

}  // namespace slip::cli
