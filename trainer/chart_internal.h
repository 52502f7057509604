#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/trainer/report.h"
#include "slipstream/trainer/table.h"

#pragma GCC visibility push(hidden)

namespace slip::html {

/// Text for an element or an attribute in double quotes.
std::string escape(std::string_view text);

/// Lines of one colour each; run i has the colour i wherever it appears.
constexpr int line_colours = 8;

struct Line {
  std::string name;
  int run = 0;
  std::vector<std::pair<double, double>> points;  // (seconds, value), in time's order
  std::optional<double> marked_at;                // seconds at which the target was reached
};

struct LineChart {
  std::string title;
  std::string time_axis;  // "seconds"
  std::vector<Line> lines;
  std::optional<double> target;
  bool logarithmic = false;  // where the values allow it and span enough
};

/// One figure of Report::curve.
struct Curve {
  std::string_view metric;  // as in a target: "accuracy", "loss"
  std::string_view title;
  std::optional<double> (*of)(const Report::CurvePoint&);
  bool logarithmic;
};

std::span<const Curve> curves();

/// A line per run that has the figure: the mean over its reports, evaluation by evaluation.
LineChart line_chart(std::span<const NamedReports> runs, const Curve& curve);

/// The plot alone, as elements of an SVG of this size.
constexpr double chart_width = 640;
constexpr double chart_height = 360;
std::string plot(const LineChart& chart);

/// A tick's label on a time axis: centred at x, but within a plot that ends at `width`.
std::string tick_text(double x, double y, std::string_view label, double width);

/// For an HTML page, whose script shows the values under the pointer.
std::string draw(const LineChart& chart);

/// What charts look like, for HTML and SVG alike: colours are `var(--NAME)`.
std::string chart_style();

/// Names that `var(--NAME)` may use.
struct Colour {
  std::string_view name;
  std::string_view light;
  std::string_view dark;
};
std::span<const Colour> palette();

}  // namespace slip::html

#pragma GCC visibility pop
