#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/trainer/table.h"

/// Plots as SVG files that need nothing but themselves, light or dark as the viewer likes it. The
/// same input gives the same bytes.
namespace slip {

/// Horizontal bars from zero: in each group one per series, in its colour.
struct BarChart {
  /// Bars side by side under one name.
  struct Group {
    std::string name;
    std::vector<std::optional<double>> values;  // by series
  };
  std::string title;
  std::vector<std::string> series;  // named in the legend where there are several
  std::vector<Group> groups;
};

/// As an SVG element.
std::string bar_chart_svg(const BarChart& chart);

/// The runs' "accuracy" or "loss" against time, a line each: the mean over its reports, evaluation
/// by evaluation. Empty where no run has such a curve.
std::string curve_svg(std::string_view title, std::span<const NamedReports> runs,
                      std::string_view figure);

}  // namespace slip
