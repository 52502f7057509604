#include "slipstream/tools/slip/findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace slip::cli {
namespace {

using Cells = std::vector<std::optional<double>>;

std::optional<double> mean(const Cells& cells) {
  double sum = 0;
  for (const std::optional<double>& cell : cells) {
    if (!cell) return {};
    sum += *cell;
  }
  return sum / static_cast<double>(cells.size());
}

// Over several swept options a mean says little.
bool has_mean(const Grid& grid) { return grid.swept.size() == 1; }

// A run's means at every place, and, where it is shown, over all of them.
Cells means(const Findings& findings, std::size_t run, const Metric& metric) {
  Cells cells;
  for (std::size_t place = 0; place < findings.grid().places.size(); ++place) {
    const auto figure = estimate(findings.of(run, place), metric);
    cells.push_back(figure ? std::optional(figure->mean) : std::nullopt);
  }
  if (has_mean(findings.grid())) cells.push_back(mean(cells));
  return cells;
}

Table empty_table(const Grid& grid) {
  Table table{{fmt::format("{}", fmt::join(grid.swept, ", "))}, {}};
  for (std::size_t place = 0; place < grid.places.size(); ++place) {
    table.header.push_back(grid.label(place));
  }
  if (has_mean(grid)) table.header.emplace_back("mean");
  return table;
}

Table figures(const Findings& findings, const Metric& metric) {
  const Grid& grid = findings.grid();
  Table table = empty_table(grid);
  for (std::size_t run = 0; run < grid.runs.size(); ++run) {
    std::vector<std::string> row = {grid.runs[run]};
    for (std::size_t place = 0; place < grid.places.size(); ++place) {
      row.push_back(to_text(estimate(findings.of(run, place), metric), metric));
    }
    if (has_mean(grid)) {
      const std::optional<double> all = means(findings, run, metric).back();
      row.push_back(to_text(all ? std::optional(Estimate{*all, 0, 1}) : std::nullopt, metric));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table speed_ups(const Findings& findings, const Metric& time) {
  const Grid& grid = findings.grid();
  Table table = empty_table(grid);
  const Cells baseline = means(findings, grid.baseline, time);
  for (std::size_t run = 0; run < grid.runs.size(); ++run) {
    std::vector<std::string> row = {grid.runs[run]};
    const Cells own = means(findings, run, time);
    for (std::size_t i = 0; i < own.size(); ++i) {
      const bool both = baseline[i] && own[i] && *own[i] > 0;
      row.push_back(both ? fmt::format("{:.2f}x", *baseline[i] / *own[i]) : "-");
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

// "Time to accuracy 0.97 [s]"
std::string time_to_target(const Findings& findings) {
  for (const std::optional<Report>& report : findings.reports()) {
    if (!report || !report->target) continue;
    return fmt::format("Time to {} {:.6g} [s]", report->target->metric, report->target->value);
  }
  return "Time to target [s]";
}

// The baseline's row first, since `comparison` holds everything against the first.
std::vector<NamedReports> baseline_first(const Findings& findings) {
  std::vector<NamedReports> runs = findings.at(0);
  const auto baseline = runs.begin() + static_cast<std::ptrdiff_t>(findings.grid().baseline);
  std::rotate(runs.begin(), baseline, baseline + 1);
  return runs;
}

}  // namespace

std::vector<const Report*> Findings::of(std::size_t run, std::size_t place) const {
  std::vector<const Report*> found;
  for (std::size_t i = 0; i < reports_.size(); ++i) {
    const Grid::Case& one = grid_.cases[i];
    if (one.run == run && one.place == place && reports_[i]) found.push_back(&*reports_[i]);
  }
  return found;
}

std::vector<NamedReports> Findings::at(std::size_t place) const {
  std::vector<NamedReports> runs;
  for (std::size_t run = 0; run < grid_.runs.size(); ++run) {
    runs.push_back({grid_.runs[run], of(run, place)});
  }
  return runs;
}

bool Findings::complete(std::size_t run, std::size_t place) const {
  for (std::size_t i = 0; i < reports_.size(); ++i) {
    const Grid::Case& one = grid_.cases[i];
    if (one.run == run && one.place == place && !reports_[i]) return false;
  }
  return true;
}

bool Findings::has(const Metric& metric) const {
  return std::any_of(reports_.begin(), reports_.end(),
                     [&](const auto& report) { return report && metric.of(*report); });
}

bool Findings::learns() const {
  return std::any_of(grid_.cases.begin(), grid_.cases.end(), [](const Grid::Case& one) {
    return one.config.task != "none" && one.config.evaluate_every > 0;
  });
}

std::vector<TitledTable> tables(const Findings& findings) {
  const Grid& grid = findings.grid();
  const auto is_expected = [&](const Metric& metric) {
    return std::find(grid.expected.begin(), grid.expected.end(), &metric) != grid.expected.end();
  };
  const Metric& per_iteration = *find_metric("seconds_per_iteration");
  const Metric& of_median = *find_metric("median_seconds_per_iteration");
  const Metric& to_target = *find_metric("target.reached_at_seconds");
  if (grid.places.size() == 1) {
    return {{"", comparison(baseline_first(findings), is_expected(of_median))}};
  }

  std::vector<TitledTable> tables;
  const auto add = [&](const Metric& time, const std::string& title, std::string_view speed_up) {
    if (!findings.has(time)) return;
    tables.push_back({title, figures(findings, time)});
    const std::string& baseline = grid.runs[grid.baseline];
    tables.push_back(
        {fmt::format("Speed-up over {}, {}", baseline, speed_up), speed_ups(findings, time)});
  };
  add(per_iteration, std::string(per_iteration.title), "per iteration");
  if (is_expected(of_median)) {
    add(of_median, std::string(of_median.title), "per iteration of the median worker");
  }
  add(to_target, time_to_target(findings), "to target");
  if (!findings.learns()) return tables;
  const Metric& accuracy = *find_metric("final.accuracy");
  const Metric& quality = findings.has(accuracy) ? accuracy : *find_metric("final.loss");
  for (const Metric* metric : {&quality, find_metric("worst_accuracy")}) {
    if (!findings.has(*metric)) continue;
    tables.push_back({std::string(metric->title), figures(findings, *metric)});
  }
  return tables;
}

}  // namespace slip::cli
