// Lines over time, as SVG.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "slipstream/trainer/axis_internal.h"
#include "slipstream/trainer/chart_internal.h"

namespace slip::html {
namespace {

constexpr double width = chart_width;
constexpr double height = chart_height;
constexpr double left = 58;
constexpr double right = 18;
constexpr double top = 14;
constexpr double bottom = 44;
constexpr std::size_t most_points = 500;  // more than the eye can tell apart

/// Where values stand on the page.
struct Scales {
  Axis x;
  Axis y;
  double px(double value) const { return left + x.position(value) * (width - left - right); }
  double py(double value) const {
    return height - bottom - y.position(value) * (height - top - bottom);
  }
};

Scales make_scales(const LineChart& chart) {
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
  if (chart.logarithmic && low > 0 && high > 10 * low) return {x, Axis::logarithmic(low, high)};
  // A quantity that is never negative keeps its zero line where it is near.
  const bool from_zero = low >= 0 && low < 0.5 * high;
  return {x, Axis::rounded(from_zero ? 0 : low, high, 6)};
}

std::string draw_axes(const Scales& scales, const LineChart& chart) {
  std::string svg;
  for (const double tick : scales.y.ticks()) {
    const double y = scales.py(tick);
    svg += fmt::format(R"(<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>)"
                       R"(<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>)",
                       left, width - right, y, y, left - 8, y + 4, scales.y.label(tick));
  }
  for (const double tick : scales.x.ticks()) {
    svg += tick_text(scales.px(tick), height - bottom + 18, scales.x.label(tick), width);
  }
  svg += fmt::format(R"(<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>)"
                     R"(<text class="axis-name" x="{3}" y="{4}" text-anchor="middle">{5}</text>)",
                     left, width - right, height - bottom, (left + width - right) / 2, height - 6,
                     escape(chart.time_axis));
  if (chart.target) {
    const double y = scales.py(*chart.target);
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

/// A line's points on the page, each with the two numbers that it stands for.
struct PlottedPoint {
  double x, y;
  double seconds, value;
};

std::vector<PlottedPoint> plotted(const Line& line, const Scales& scales) {
  std::vector<PlottedPoint> points;
  for (const auto& [seconds, value] : thinned(line)) {
    points.push_back({std::round(scales.px(seconds) * 10) / 10,
                      std::round(scales.py(value) * 10) / 10, seconds, value});
  }
  return points;
}

std::string draw_line(const Line& line, const LineChart& chart, const Scales& scales) {
  std::string path;
  for (const PlottedPoint& point : plotted(line, scales)) {
    path += fmt::format("{},{} ", point.x, point.y);
  }
  const int colour = line.run % line_colours;
  std::string svg =
      fmt::format(R"(<g class="run" data-run="{}"><polyline class="line c{} dash{}" points="{}"/>)",
                  line.run, colour, line.run / line_colours % 3, path);
  if (line.marked_at && chart.target) {
    svg += fmt::format(R"(<circle class="reached c{}" cx="{:.1f}" cy="{:.1f}" r="5.5"/>)", colour,
                       scales.px(*line.marked_at), scales.py(*chart.target));
  }
  return svg + "</g>";
}

/// What the page's script shows under the pointer.
std::string hover_data(const LineChart& chart, const Scales& scales) {
  auto lines = nlohmann::ordered_json::array();
  for (const Line& line : chart.lines) {
    auto points = nlohmann::ordered_json::array();
    for (const PlottedPoint& point : plotted(line, scales)) {
      points.push_back({point.x, point.y, fmt::format("{:.4g}", point.seconds),
                        fmt::format("{:.4g}", point.value)});
    }
    lines.push_back({{"name", line.name},
                     {"colour", line.run % line_colours},
                     {"run", line.run},
                     {"points", points}});
  }
  return lines.dump();
}

std::string plot(const LineChart& chart, const Scales& scales) {
  std::string svg = draw_axes(scales, chart);
  for (const Line& line : chart.lines) svg += draw_line(line, chart, scales);
  return svg;
}

}  // namespace

std::string plot(const LineChart& chart) { return plot(chart, make_scales(chart)); }

std::string draw(const LineChart& chart) {
  const Scales scales = make_scales(chart);
  return fmt::format(
      R"(<figure class="card"><figcaption>{}</figcaption>)"
      R"(<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" data-lines="{}">)"
      R"({}<line class="cursor" y1="{}" y2="{}" x1="0" x2="0"/></svg></figure>)",
      escape(chart.title), width, height, escape(chart.title), escape(hover_data(chart, scales)),
      plot(chart, scales), top, height - bottom);
}

}  // namespace slip::html
