// What a report's curve holds, as lines over time.
#include <algorithm>
#include <array>
#include <cmath>

#include "slipstream/trainer/chart_internal.h"
#include "slipstream/trainer/metric.h"

namespace slip::html {
namespace {

using Point = Report::CurvePoint;

constexpr std::array all_curves{
    Curve{"accuracy", "Accuracy", [](const Point& p) { return p.accuracy; }, false},
    Curve{"loss", "Loss", [](const Point& p) { return p.loss; }, true},
    Curve{"", "Iterations done",
          [](const Point& p) { return std::optional(static_cast<double>(p.iteration)); }, false},
    Curve{"", "Spread between the workers' models", [](const Point& p) { return p.spread; }, true},
};

const Point* find(const Report& report, Iteration iteration) {
  const auto at = std::find_if(report.curve.begin(), report.curve.end(),
                               [&](const Point& point) { return point.iteration == iteration; });
  return at == report.curve.end() ? nullptr : &*at;
}

// Of the iterations that all reports have evaluated.
std::vector<std::pair<double, double>> mean_curve(const std::vector<const Report*>& reports,
                                                  const Curve& curve) {
  std::vector<std::pair<double, double>> points;
  for (const Point& first : reports.front()->curve) {
    double seconds = 0;
    double sum = 0;
    bool everywhere = true;
    for (const Report* report : reports) {
      const Point* point = find(*report, first.iteration);
      const std::optional<double> value = point ? curve.of(*point) : std::nullopt;
      everywhere = everywhere && value && std::isfinite(*value);
      if (!everywhere) break;
      seconds += point->seconds;
      sum += *value;
    }
    const auto n = static_cast<double>(reports.size());
    if (everywhere) points.emplace_back(seconds / n, sum / n);
  }
  return points;
}

}  // namespace

std::span<const Curve> curves() { return all_curves; }

LineChart line_chart(std::span<const NamedReports> runs, const Curve& curve) {
  LineChart chart{.title = std::string(curve.title),
                  .time_axis = "seconds",
                  .lines = {},
                  .target = {},
                  .logarithmic = curve.logarithmic};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::vector<const Report*>& reports = runs[i].reports;
    if (reports.empty()) continue;
    if (reports.front()->transport == "sim") chart.time_axis = "seconds (virtual)";
    Line line{runs[i].name, static_cast<int>(i), mean_curve(reports, curve), {}};
    if (const auto& target = reports.front()->target; target && target->metric == curve.metric) {
      chart.target = target->value;
      const auto reached = estimate(reports, *find_metric("target.reached_at_seconds"));
      if (reached) line.marked_at = reached->mean;
    }
    if (!line.points.empty()) chart.lines.push_back(std::move(line));
  }
  return chart;
}

}  // namespace slip::html
