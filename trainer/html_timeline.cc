// Who computed and who waited, as SVG.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "slipstream/trainer/axis_internal.h"
#include "slipstream/trainer/html_internal.h"

namespace slip::html {
namespace {

constexpr Iteration shown_iterations = 10;
constexpr std::size_t most_rows = 32;
constexpr double width = 1180;
constexpr double left = 84;
constexpr double right = 12;
constexpr double top = 4;
constexpr double row_height = 19;
constexpr double bar_height = 14;
constexpr double foot = 26;
constexpr double narrowest = 0.12;  // bars below this would not be seen

double milliseconds(Duration d) { return to_seconds(d) * 1e3; }

template <class T>
T middle(std::vector<T> values) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

std::string draw_span(const Span& span, const Axis& axis, double y) {
  const auto x_of = [&](Time t) {
    return left + axis.position(milliseconds(t)) * (width - left - right);
  };
  const double x = x_of(span.begin);
  const double length = x_of(span.end) - x;
  if (length < narrowest) return "";
  const std::string_view kind = to_string(span.kind);
  std::string svg =
      fmt::format(R"(<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" )"
                  R"(data-tip="worker {}, iteration {}: {} {}"/>)",
                  kind, x, y, length, bar_height, span.rank, span.iteration, kind,
                  format_seconds(to_seconds(span.end - span.begin)));
  const std::string number = fmt::to_string(span.iteration);
  if (span.kind == SpanKind::compute && length >= 6.5 * static_cast<double>(number.size()) + 4) {
    svg += fmt::format(R"(<text class="count" x="{:.1f}" y="{:.1f}">{}</text>)", x + length / 2,
                       y + bar_height - 3.5, number);
  }
  return svg;
}

}  // namespace

Window first_iterations(std::span<const PageRun> runs) {
  // A run's stretch ends where its middling worker has done its first iterations; the page shows
  // the longest, unless that would squeeze the shortest beyond reading.
  Time begin = never;
  std::vector<Time> ends;
  for (const PageRun& run : runs) {
    std::map<int, Time> last;
    for (const Span& span : run.spans) {
      if (!is_valid(span)) continue;
      begin = std::min(begin, span.begin);
      Time& end = last[span.rank];
      if (span.iteration < shown_iterations) end = std::max(end, span.end);
    }
    if (last.empty()) continue;
    std::vector<Time> of_workers;
    for (const auto& [rank, end] : last) of_workers.push_back(end);
    ends.push_back(middle(of_workers));
  }
  if (ends.empty()) return {};
  const auto [shortest, longest] = std::minmax_element(ends.begin(), ends.end());
  return {begin, std::min(*longest, begin + 4 * (*shortest - begin))};
}

std::vector<double> slowness(const Report& report) {
  std::vector<double> times;
  for (const Report::Worker& worker : report.per_worker) {
    const Iteration done = worker.iterations - std::min(worker.skipped, worker.iterations);
    times.push_back(done > 0 ? worker.compute_seconds / static_cast<double>(done) : 0);
  }
  if (times.empty()) return times;
  const double usual = middle(times);
  for (double& time : times) time = usual > 0 && time > 0 ? time / usual : 1;
  return times;
}

std::vector<std::size_t> shown_workers(const Report& report, std::size_t limit) {
  std::vector<std::size_t> order(report.per_worker.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (order.size() <= limit) return order;

  const std::vector<double> slow = slowness(report);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return slow[a] > slow[b]; });
  std::vector<std::size_t> shown(order.begin(), order.begin() + limit / 4);
  order.erase(order.begin(), order.begin() + limit / 4);
  std::sort(order.begin(), order.end());
  const std::size_t rest = limit - shown.size();
  for (std::size_t k = 0; k < rest; ++k) shown.push_back(order[k * order.size() / rest]);
  std::sort(shown.begin(), shown.end());
  return shown;
}

std::string draw_timeline(const PageRun& run, const Window& window) {
  const Report& report = *run.report;
  const Axis axis = Axis::linear(milliseconds(window.begin), milliseconds(window.end), 10);
  const std::vector<double> slow = slowness(report);
  const std::vector<std::size_t> shown = shown_workers(report, most_rows);
  std::map<int, double> row_of;
  std::string rows;
  for (const std::size_t index : shown) {
    const int rank = report.per_worker[index].rank;
    const double y = top + static_cast<double>(row_of.size()) * row_height;
    if (!row_of.emplace(rank, y).second) continue;
    const bool straggles = slow[index] >= 1.5;
    rows += fmt::format(R"(<rect class="lane" x="{}" y="{}" width="{}" height="{}"/>)"
                        R"(<text class="{}" x="{}" y="{}" text-anchor="end">{}{}</text>)",
                        left, y, width - left - right, bar_height, straggles ? "rank slow" : "rank",
                        left - 8, y + bar_height - 2.5,
                        straggles ? fmt::format("{:.1f}× · ", slow[index]) : "", rank);
  }
  for (const Span& span : run.spans) {
    const auto row = row_of.find(span.rank);
    if (!is_valid(span) || row == row_of.end()) continue;
    if (span.begin < window.end && span.end > window.begin)
      rows += draw_span(span, axis, row->second);
  }

  const double below = top + static_cast<double>(row_of.size()) * row_height;
  for (const double tick : axis.ticks()) {
    rows += tick_text(left + axis.position(tick) * (width - left - right), below + 14,
                      axis.label(tick) + " ms", width);
  }
  std::string note;
  if (row_of.size() < report.per_worker.size()) {
    note = fmt::format(
        R"(<p class="note">{} of {} workers: the slowest and an even choice of the others.</p>)",
        row_of.size(), report.per_worker.size());
  }
  return fmt::format(
      R"(<svg class="timeline" viewBox="0 0 {} {}" role="img" aria-label="timeline of {}">)"
      R"({}</svg>{})",
      width, below + foot, escape(run.name), rows, note);
}

std::string timeline_legend() {
  std::string html = R"(<p class="legend">)";
  for (int kind = 0; kind < span_kinds; ++kind) {
    const std::string_view name = to_string(static_cast<SpanKind>(kind));
    html += fmt::format(R"(<span><i class="{}"></i>{}</span>)", name, name);
  }
  return html + "</p>";
}

}  // namespace slip::html
