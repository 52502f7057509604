#pragma once

#include <optional>
#include <string>

#include "slipstream/base/time.h"
#include "slipstream/base/word.h"

namespace slip {

/// What a model is worth on held-out data. Tasks without a notion of accuracy leave it empty.
struct Evaluation {
  double loss = 0;
  std::optional<double> accuracy;  // 0..1
};

/// The mean of all workers' snapshots of one iteration, evaluated.
struct CurvePoint {
  Duration at{0};  // since the start: when the last snapshot was left
  Iteration iteration = 0;
  Evaluation evaluation;
  double spread = 0;  // mean distance (2-norm) between the workers' models and their mean
  std::optional<double> worst_accuracy;  // of a worker's own model, where each is evaluated
};

/// A goal of a run: accuracy from below, loss from above.
struct Target {
  std::string metric;  // "accuracy" or "loss"
  double value = 0;
  bool stop = true;  // the run ends there, else the time is noted and it goes on

  bool reached(const Evaluation& evaluation) const {
    if (metric == "loss") return evaluation.loss <= value;
    return evaluation.accuracy && *evaluation.accuracy >= value;
  }
};

}  // namespace slip
