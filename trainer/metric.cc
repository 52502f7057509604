#include "slipstream/trainer/metric.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace slip {
namespace {

using Value = std::optional<double>;

template <class T>
Value number(T value) {
  return static_cast<double>(value);
}

constexpr std::array all_metrics{
    Metric{"seconds", "Length of the run [s]", "run [s]", "{:#.4g}",
           [](const Report& r) { return number(r.seconds); }},
    Metric{"seconds_per_iteration", "Seconds per iteration", "s/iteration", "{:#.4g}",
           [](const Report& r) { return r.seconds_per_iteration(); }},
    Metric{"median_seconds_per_iteration", "Seconds per iteration of the median worker",
           "of the median", "{:#.4g}",
           [](const Report& r) { return r.median_seconds_per_iteration(); }},
    Metric{"target.reached_at_seconds", "Time to target [s]", "to target [s]", "{:#.4g}",
           [](const Report& r) { return r.target ? r.target->reached_at_seconds : Value(); }},
    Metric{"final.accuracy", "Final accuracy", "final accuracy", "{:.4f}",
           [](const Report& r) { return r.final.accuracy; }},
    Metric{"worst_accuracy", "Accuracy of the worst worker's own model at the end", "worst worker",
           "{:.4f}", [](const Report& r) { return r.worst_accuracy(); }},
    Metric{"final.loss", "Final loss", "final loss", "{:#.4g}",
           [](const Report& r) { return r.final.loss; }},
    Metric{"max_gap_seen", "Largest gap", "max gap", "{:.12g}",
           [](const Report& r) { return r.max_gap_seen ? number(*r.max_gap_seen) : Value(); }},
    Metric{"updates.sent", "Updates sent", "updates sent", "{:.12g}",
           [](const Report& r) { return number(r.updates.sent); }},
    Metric{"updates.used", "Updates used", "updates used", "{:.12g}",
           [](const Report& r) { return number(r.updates.used); }},
    Metric{"updates.late", "Late updates", "late updates", "{:.12g}",
           [](const Report& r) { return number(r.updates.late); }},
    Metric{"bytes_sent", "Bytes sent", "bytes sent", "{:.12g}",
           [](const Report& r) { return number(r.bytes_sent); }},
};

}  // namespace

std::span<const Metric> metrics() { return all_metrics; }

const Metric* find_metric(std::string_view name) {
  const auto* at = std::find_if(all_metrics.begin(), all_metrics.end(),
                                [&](const Metric& metric) { return metric.name == name; });
  return at == all_metrics.end() ? nullptr : at;
}

std::vector<std::string> metric_names() {
  std::vector<std::string> names;
  for (const Metric& metric : all_metrics) names.emplace_back(metric.name);
  return names;
}

std::optional<Estimate> estimate(std::span<const Report* const> reports, const Metric& metric) {
  Estimate result;
  std::vector<double> values;
  for (const Report* report : reports) {
    const std::optional<double> value = metric.of(*report);
    if (!value) return {};
    values.push_back(*value);
    result.mean += *value;
  }
  if (values.empty()) return {};
  result.runs = values.size();
  result.mean /= static_cast<double>(values.size());
  if (values.size() == 1) return result;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  return result;
}

std::string to_text(const std::optional<Estimate>& estimate, const Metric& metric) {
  if (!estimate) return "-";
  std::string text = fmt::format(fmt::runtime(metric.format), estimate->mean);
  if (text.ends_with('.')) text.pop_back();  // "1074."
  if (estimate->runs > 1) text += fmt::format(" ± {:.2g}", estimate->deviation);
  return text;
}

}  // namespace slip
