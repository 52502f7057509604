#include "slipstream/perf/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace slip::perf {

Statistics summarise(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const auto count = static_cast<double>(samples.size());
  const auto percentile = [&](double part) {
    const double rank = std::ceil(part * count);
    return samples[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
  };
  Statistics s;
  s.min = samples.front();
  s.p50 = percentile(0.5);
  s.p99 = percentile(0.99);
  s.p999 = percentile(0.999);
  s.max = samples.back();
  s.avg = std::accumulate(samples.begin(), samples.end(), 0.0) / count;
  double squares = 0;
  for (const double sample : samples) squares += (sample - s.avg) * (sample - s.avg);
  if (samples.size() > 1) s.stdev = std::sqrt(squares / (count - 1));
  return s;
}

}  // namespace slip::perf
