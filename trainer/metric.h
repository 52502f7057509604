#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/trainer/report.h"

namespace slip {

/// One figure of a report.
struct Metric {
  std::string_view name;                       // as the report's field: "target.reached_at_seconds"
  std::string_view title;                      // "Time to target [s]"
  std::string_view heading;                    // the same in short, above a column
  std::string_view format;                     // of its values, as fmt takes it
  std::optional<double> (*of)(const Report&);  // empty where a report has no such figure
};

/// All of them, in the order of tables.
std::span<const Metric> metrics();
/// Null for an unknown name.
const Metric* find_metric(std::string_view name);
/// Their names, in that order.
std::vector<std::string> metric_names();

/// A figure of runs that differ in their seed alone.
struct Estimate {
  double mean = 0;
  double deviation = 0;  // the sample's standard deviation; 0 for a single run
  std::size_t runs = 0;
};

/// Empty where there is no report, or where one of them has no such figure.
std::optional<Estimate> estimate(std::span<const Report* const> reports, const Metric& metric);

/// "2.215", "2.215 ± 0.012" for several runs; "-" where there is none.
std::string to_text(const std::optional<Estimate>& estimate, const Metric& metric);

}  // namespace slip
