// Lines over time, as SVG.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "slipstream/trainer/axis_internal.h"
#include "slipstream/trainer/html_internal.h"

namespace slip::html {
namespace {

constexpr double width = 640;
constexpr double height = 360;
constexpr double left = 58;
constexpr double right = 18;
constexpr double top = 14;
constexpr double bottom = 44;
constexpr std::size_t most_points = 500;  // more than the eye can tell apart

/// Where values stand on the page.
struct Plot {
  Axis x;
  Axis y;
  double px(double value) const { return left + x.position(value) * (width - left - right); }
  double py(double value) const {
    return height - bottom - y.position(value) * (height - top - bottom);
  }
};

Plot make_plot(const LineChart& chart) {
  double latest = 0;
  double low = chart.target.value_or(std::numeric_limits<double>::infinity());
  double high = chart.target.value_or(-std::numeric_limits<double>::infinity());
  for (const Line& line : chart.lines) {
    for (const auto& [time, value] : line.points) {
      latest = std::max(latest, time);
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  const Axis x = Axis::linear(0, latest, 10);
  if (chart.logarithmic && low > 0 && high > 30 * low) return {x, Axis::logarithmic(low, high)};
  // A quantity that is never negative keeps its zero line where it is near.
  const bool from_zero = low >= 0 && low < 0.5 * high;
  return {x, Axis::rounded(from_zero ? 0 : low, high, 6)};
}

std::string draw_axes(const Plot& plot, const LineChart& chart) {
  std::string svg;
  for (const double tick : plot.y.ticks()) {
    const double y = plot.py(tick);
    svg += fmt::format(R"(<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>)"
                       R"(<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>)",
                       left, width - right, y, y, left - 8, y + 4, plot.y.label(tick));
  }
  for (const double tick : plot.x.ticks()) {
    svg += fmt::format(R"(<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>)",
                       plot.px(tick), height - bottom + 18, plot.x.label(tick));
  }
  svg += fmt::format(R"(<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>)"
                     R"(<text class="axis-name" x="{3}" y="{4}" text-anchor="middle">{5}</text>)",
                     left, width - right, height - bottom, (left + width - right) / 2, height - 6,
                     escape(chart.time_axis));
  if (chart.target) {
    const double y = plot.py(*chart.target);
    svg += fmt::format(R"(<line class="target" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>)"
                       R"(<text class="target-name" x="{}" y="{:.1f}">target {:.6g}</text>)",
                       left, width - right, y, y, left + 8, y - 6, *chart.target);
  }
  return svg;
}

std::vector<std::pair<double, double>> thinned(const Line& line) {
  const std::size_t stride = 1 + line.points.size() / most_points;
  std::vector<std::pair<double, double>> points;
  for (std::size_t i = 0; i < line.points.size(); i += stride) points.push_back(line.points[i]);
  if (stride > 1) points.push_back(line.points.back());
  return points;
}

}  // namespace

std::string draw(const LineChart& chart) {
  const Plot plot = make_plot(chart);
  std::string lines;
  nlohmann::ordered_json hover = nlohmann::ordered_json::array();
  for (const Line& line : chart.lines) {
    std::string path;
    auto points = nlohmann::ordered_json::array();
    for (const auto& [time, value] : thinned(line)) {
      const double x = std::round(plot.px(time) * 10) / 10;
      const double y = std::round(plot.py(value) * 10) / 10;
      path += fmt::format("{},{} ", x, y);
      points.push_back({x, y, fmt::format("{:.4g}", time), fmt::format("{:.4g}", value)});
    }
    const int colour = line.run % line_colours;
    const int dash = line.run / line_colours % 3;
    lines += fmt::format(
        R"(<g class="run" data-run="{}"><polyline class="line c{} dash{}" points="{}"/>)", line.run,
        colour, dash, path);
    if (line.marked_at && chart.target) {
      lines += fmt::format(R"(<circle class="reached c{}" cx="{:.1f}" cy="{:.1f}" r="5.5"/>)",
                           colour, plot.px(*line.marked_at), plot.py(*chart.target));
    }
    lines += "</g>";
    hover.push_back(
        {{"name", line.name}, {"colour", colour}, {"run", line.run}, {"points", points}});
  }
  return fmt::format(
      R"(<figure class="card"><figcaption>{}</figcaption>)"
      R"(<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" data-lines="{}">)"
      R"({}{}<line class="cursor" y1="{}" y2="{}" x1="0" x2="0"/></svg></figure>)",
      escape(chart.title), width, height, escape(chart.title), escape(hover.dump()),
      draw_axes(plot, chart), lines, top, height - bottom);
}

}  // namespace slip::html
