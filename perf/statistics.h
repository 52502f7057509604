#pragma once

#include <vector>

namespace slip::perf {

/// Of the samples of one row. Percentiles are nearest-rank: the smallest sample that at least that
/// part of the samples does not exceed, so each is a time that was measured.
struct Statistics {
  double min = 0;
  double p50 = 0;
  double p99 = 0;
  double p999 = 0;
  double max = 0;
  double avg = 0;
  double stdev = 0;  // of the sample: over n - 1
};

/// All zero where there are no samples.
Statistics summarise(std::vector<double> samples);

}  // namespace slip::perf
