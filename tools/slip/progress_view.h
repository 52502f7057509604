#pragma once

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>

#include "slipstream/base/time.h"
#include "slipstream/tools/slip/board.h"

namespace slip::cli {

/// Shows on stdout how a run goes: on a terminal one line that is written over a few times a
/// second, else a plain line for each tenth of the iterations (or, where nobody knows how many
/// there will be, every five seconds of the run's clock), so that a simulated run always prints the
/// same.
class ProgressView {
 public:
  /// `before`: iterations that an earlier run has done; `total`: after which this one ends, if
  /// known.
  ProgressView(int workers, Iteration before, std::optional<Iteration> total);

  /// Rank 0 has done `iterations` after `elapsed` on the run's clock; `loss` is its last batch's.
  /// The slowest worker is who has done the fewest; it is behind who has done the most.
  void update(Iteration iterations, Duration elapsed, double loss, const Board& board);

  /// Takes the line from the terminal.
  ~ProgressView();

 private:
  bool due(Iteration iterations, Duration elapsed);

  const int workers_;
  const Iteration before_;
  const std::optional<Iteration> total_;
  const bool terminal_;
  std::chrono::steady_clock::time_point next_draw_{};
  Iteration tenths_ = 0;
  Duration next_line_;
  bool drawn_ = false;
};

}  // namespace slip::cli
