#include "slipstream/trainer/table.h"

#include <fmt/format.h>

#include <algorithm>

#include "slipstream/trainer/metric.h"

namespace slip {
namespace {

/// Columns on the screen: UTF-8 continuation bytes take none.
std::size_t width(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

const Metric& metric(std::string_view name) { return *find_metric(name); }

template <class Has>
bool any(std::span<const NamedReports> runs, Has has) {
  return std::any_of(runs.begin(), runs.end(), [&](const NamedReports& run) {
    return std::any_of(run.reports.begin(), run.reports.end(),
                       [&](const Report* report) { return has(*report); });
  });
}

}  // namespace

std::string to_text(const Table& table) {
  std::vector<std::size_t> widths;
  for (const std::string& title : table.header) widths.push_back(width(title));
  for (const auto& row : table.rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
  }

  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(widths[c] - width(row[c]), ' ');
      if (c > 0) line += "  ";
      line += c == 0 ? row[c] + padding : padding + row[c];
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  add(table.header);
  std::vector<std::string> rule;
  for (const std::size_t w : widths) rule.emplace_back(w, '-');
  add(rule);
  for (const auto& row : table.rows) add(row);
  return text;
}

std::string to_markdown(const Table& table) {
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    text += fmt::format("| {} |\n", fmt::join(row, " | "));
  };
  add(table.header);
  std::vector<std::string> rule(table.header.size(), "---:");
  if (!rule.empty()) rule.front() = "---";
  add(rule);
  for (const auto& row : table.rows) add(row);
  return text;
}

std::vector<std::optional<double>> speed_ups(std::span<const NamedReports> runs) {
  const bool targets = any(runs, [](const Report& r) { return r.target.has_value(); });
  const Metric& time = metric(targets ? "target.reached_at_seconds" : "seconds_per_iteration");
  std::vector<std::optional<Estimate>> times;
  for (const NamedReports& run : runs) times.push_back(estimate(run.reports, time));
  std::vector<std::optional<double>> result;
  for (const std::optional<Estimate>& own : times) {
    const bool both = times.front() && own && own->mean > 0;
    result.push_back(both ? std::optional(times.front()->mean / own->mean) : std::nullopt);
  }
  return result;
}

Table comparison(std::span<const NamedReports> runs, bool medians) {
  const bool accuracies = any(runs, [](const Report& r) { return r.final.accuracy.has_value(); });
  const Metric& quality = metric(accuracies ? "final.accuracy" : "final.loss");
  Table table{{"run"}, {}};
  const std::vector<std::optional<double>> ups = speed_ups(runs);
  std::vector<const Metric*> times = {&metric("target.reached_at_seconds"),
                                      &metric("seconds_per_iteration")};
  if (medians) times.push_back(&metric("median_seconds_per_iteration"));
  std::vector<const Metric*> others = {&metric("max_gap_seen"), &metric("updates.late"), &quality};
  if (any(runs, [](const Report& r) { return r.worst_accuracy().has_value(); })) {
    others.push_back(&metric("worst_accuracy"));
  }
  for (const Metric* m : times) table.header.emplace_back(m->heading);
  table.header.emplace_back("speed-up");
  for (const Metric* m : others) table.header.emplace_back(m->heading);

  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::vector<const Report*>& reports = runs[i].reports;
    const bool nameless = runs[i].name.empty() && !reports.empty();
    std::vector<std::string> row = {nameless ? reports.front()->protocol : runs[i].name};
    for (const Metric* m : times) row.push_back(to_text(estimate(reports, *m), *m));
    row.push_back(ups[i] ? fmt::format("{:.2f}x", *ups[i]) : "-");
    for (const Metric* m : others) row.push_back(to_text(estimate(reports, *m), *m));
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace slip
