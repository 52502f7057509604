#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/base/word.h"

namespace slip {

/// What a run leaves behind (`--report`): plain values, and JSON of the same field names. In the
/// simulator seconds are virtual, and nothing here holds wall time, host or date, so one seed gives
/// one file.
struct Report {
  /// The mean model, evaluated. A task without accuracy leaves it empty.
  struct Final {
    std::optional<double> loss;
    std::optional<double> accuracy;  // 0..1
  };

  /// The goal, and when it was reached.
  struct Target {
    std::string metric;  // "accuracy" (reached from below) or "loss" (from above)
    double value = 0;
    std::optional<double> reached_at_seconds;  // of the last snapshot that went into it
  };

  /// Counts over all workers.
  struct Updates {
    std::uint64_t sent = 0;
    std::uint64_t used = 0;
    /// Thrown away, as they were too old to be used when their receiver met them. Not those that
    /// gave way to a newer one of their sender while they could be used, or that were never met: a
    /// newer one was written over them, or the run was over.
    std::uint64_t late = 0;
  };

  /// What one worker has done.
  struct Worker {
    int rank = 0;
    Iteration iterations = 0;  // reached, skipped ones counted
    Iteration skipped = 0;
    double compute_seconds = 0;
    double wait_seconds = 0;
    std::optional<double> cpu_seconds;  // empty in the simulator
    std::uint64_t bytes_sent = 0;
  };

  /// The mean of the workers' snapshots of one iteration.
  struct CurvePoint {
    double seconds = 0;
    Iteration iteration = 0;
    std::optional<double> loss;
    std::optional<double> accuracy;
    std::optional<double> spread;  // mean distance between the workers' models and their average
    std::optional<double> worst_accuracy =
        {};  // of a worker's own model; only if each was evaluated
  };

  using Vector = std::vector<double>;

  std::string slipstream;  // version
  std::string protocol;
  std::string transport;
  int workers = 0;
  std::uint64_t seed = 0;
  /// Resolved, in the order in which they are documented; output paths are left out by the caller.
  /// In JSON a value that reads as a number or as true or false becomes one.
  std::vector<std::pair<std::string, std::string>> options;
  double seconds = 0;
  std::vector<Iteration> iterations;  // reached, per worker
  Iteration resumed_at = 0;  // those of them that an earlier run has done; else not in JSON
  Final final;
  std::optional<Target> target;
  std::optional<Iteration> max_gap_seen;
  Updates updates;
  std::uint64_t bytes_sent = 0;
  std::vector<Worker> per_worker;
  std::vector<CurvePoint> curve;
  /// `--record-parameters`: per iteration, one vector per worker, after that iteration's averaging.
  std::optional<std::vector<std::vector<Vector>>> parameters;

  /// Seconds over the mean of the workers' iterations reached in this run; empty before the first.
  std::optional<double> seconds_per_iteration() const;
  /// Over their median: what most workers see, whatever a few slow ones do.
  std::optional<double> median_seconds_per_iteration() const;
  /// That of the curve's last point.
  std::optional<double> worst_accuracy() const;
};

/// Stable order of fields, numbers that read back to the same bits; what is absent, infinite or not
/// a number is null.
std::string to_json(const Report& report);

/// Throws Error(bad_data), one line that names `source` (a file) and the field. Fields that are not
/// known are passed over.
Report report_from_json(std::string_view json, std::string_view source);

/// A file that appears at once or not at all; see write_file for errors.
void write_report(const Report& report, const std::string& path);
/// Of a file that `write_report` wrote. Throws Error (not_found, io, bad_data).
Report read_report(const std::string& path);

}  // namespace slip
