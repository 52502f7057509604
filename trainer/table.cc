#include "slipstream/trainer/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace slip {
namespace {

/// Columns on the screen: UTF-8 continuation bytes take none.
std::size_t width(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

template <class T>
std::string cell(const std::optional<T>& value, std::string_view format) {
  return value ? fmt::format(fmt::runtime(format), *value) : "-";
}

std::optional<double> time_to_target(const Report& report) {
  return report.target ? report.target->reached_at_seconds : std::nullopt;
}

template <class Has>
bool any(std::span<const NamedReport> reports, Has has) {
  return std::any_of(reports.begin(), reports.end(),
                     [&](const NamedReport& r) { return has(*r.report); });
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

std::vector<std::optional<double>> speed_ups(std::span<const NamedReport> reports) {
  const bool targets = any(reports, [](const Report& r) { return r.target.has_value(); });
  std::vector<std::optional<double>> times;
  for (const NamedReport& r : reports) {
    times.push_back(targets ? time_to_target(*r.report) : r.report->seconds_per_iteration());
  }
  std::vector<std::optional<double>> result;
  for (const std::optional<double>& time : times) {
    const bool both = times.front() && time && *time > 0;
    result.push_back(both ? std::optional(*times.front() / *time) : std::nullopt);
  }
  return result;
}

Table comparison(std::span<const NamedReport> reports) {
  const bool accuracies =
      any(reports, [](const Report& r) { return r.final.accuracy.has_value(); });
  const std::vector<std::optional<double>> ups = speed_ups(reports);
  Table table{{"protocol", "to target [s]", "s/iteration", "speed-up", "max gap", "late updates",
               accuracies ? "final accuracy" : "final loss"},
              {}};
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const Report& report = *reports[i].report;
    table.rows.push_back({
        reports[i].name.empty() ? report.protocol : reports[i].name,
        cell(time_to_target(report), "{:.4g}"),
        cell(report.seconds_per_iteration(), "{:.4g}"),
        cell(ups[i], "{:.2f}x"),
        cell(report.max_gap_seen, "{}"),
        fmt::format("{}", report.updates.late),
        accuracies ? cell(report.final.accuracy, "{:.4f}") : cell(report.final.loss, "{:.4g}"),
    });
  }
  return table;
}

}  // namespace slip
