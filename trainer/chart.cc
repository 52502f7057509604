#include "slipstream/trainer/chart.h"

#include <fmt/format.h>

#include <algorithm>

#include "slipstream/trainer/axis_internal.h"
#include "slipstream/trainer/chart_internal.h"

namespace slip {
namespace html {
namespace {

constexpr double margin = 14;
constexpr double title_height = 34;
constexpr double legend_height = 22;

// No viewer is asked for the width of a text: about what a letter takes in most fonts.
double text_width(std::string_view text) {
  constexpr double letter = 7.8;
  const auto letters =
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
  return letter * static_cast<double>(letters);
}

// Viewers of images know no variables, so that each theme has its own copy of the rules.
std::string with_colours(std::string css, std::string_view Colour::*which) {
  for (const Colour& colour : palette()) {
    const std::string variable = fmt::format("var(--{})", colour.name);
    const std::string value(colour.*which);
    for (std::size_t at = 0; (at = css.find(variable, at)) != css.npos; at += value.size()) {
      css.replace(at, variable.size(), value);
    }
  }
  return css;
}

std::string svg_file(double height, std::string_view title, const std::string& content) {
  const std::string style = chart_style() + R"css(
.paper { fill: var(--card); } .title { fill: var(--text); font-size: 16px; font-weight: 600; }
.name { fill: var(--text); font-size: 13.5px; }
)css";
  return fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1:.0f}" width="{0}" )"
      R"(height="{1:.0f}" role="img" aria-label="{2}" )"
      R"(font-family="system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif">
<style>{3}@media (prefers-color-scheme: dark) {{{4}}}</style>
<rect class="paper" width="{0}" height="{1:.0f}" rx="10"/>
<text class="title" x="{5}" y="24">{2}</text>
{6}</svg>
)",
      chart_width, height, escape(title), with_colours(style, &Colour::light),
      with_colours(style, &Colour::dark), margin, content);
}

struct Legend {
  std::string svg;
  double height = 0;
};

// `names[i]` has the colour `colours[i]`.
Legend draw_legend(const std::vector<std::pair<int, std::string>>& names) {
  Legend legend;
  double x = margin;
  double y = title_height + 13;
  for (const auto& [run, name] : names) {
    const double width = 18 + text_width(name) + 14;
    if (x > margin && x + width > chart_width) {
      x = margin;
      y += legend_height;
    }
    legend.svg +=
        fmt::format(R"(<rect class="c{}" x="{:.1f}" y="{:.1f}" width="12" height="12" rx="3"/>)"
                    R"(<text class="name" x="{:.1f}" y="{:.1f}">{}</text>)",
                    run % line_colours, x, y - 11, x + 18, y, escape(name));
    x += width;
  }
  legend.height = names.empty() ? 0 : y + 9 - title_height;
  return legend;
}

struct Rows {
  double left;   // where bars begin
  double right;  // where the longest ends
  Axis axis;
  double x(double value) const { return left + axis.position(value) * (right - left); }
};

constexpr double bar_height = 13;
constexpr double group_gap = 11;
constexpr double axis_height = 26;

Rows make_rows(const BarChart& chart) {
  double longest = 0;
  double name_width = 0;
  for (const BarChart::Group& group : chart.groups) {
    name_width = std::max(name_width, text_width(group.name));
    for (const auto& value : group.values) longest = std::max(longest, value.value_or(0));
  }
  const double left = margin + std::min(name_width, chart_width / 2) + 10;
  const double number_width = text_width("0.0000");
  return {left, chart_width - margin - number_width, Axis::rounded(0, longest, 6)};
}

double height_of(const BarChart::Group& group) {
  return bar_height * static_cast<double>(group.values.size()) + group_gap;
}

std::string draw_group(const BarChart::Group& group, const Rows& rows, double y) {
  std::string svg =
      fmt::format(R"(<text class="name" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)",
                  rows.left - 8, y + (height_of(group) - group_gap) / 2 + 5, escape(group.name));
  for (std::size_t i = 0; i < group.values.size(); ++i, y += bar_height) {
    const std::optional<double>& value = group.values[i];
    const double end = rows.x(value.value_or(0));
    if (value) {
      svg += fmt::format(
          R"(<rect class="c{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2"/>)",
          i % line_colours, rows.left, y + 1, end - rows.left, bar_height - 2);
    }
    svg += fmt::format(R"(<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>)", end + 6, y + 11,
                       value ? fmt::format("{:.4g}", *value) : "-");
  }
  return svg;
}

}  // namespace

std::string tick_text(double x, double y, std::string_view label, double width) {
  return fmt::format(R"(<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>)",
                     std::min(x, width - text_width(label) / 2), y, escape(label));
}

}  // namespace html

std::string bar_chart_svg(const BarChart& chart) {
  using namespace html;
  std::vector<std::pair<int, std::string>> names;
  for (std::size_t i = 0; i < chart.series.size() && chart.series.size() > 1; ++i) {
    names.emplace_back(static_cast<int>(i), chart.series[i]);
  }
  const Legend legend = draw_legend(names);
  const Rows rows = make_rows(chart);
  const double top = title_height + legend.height + 6;
  double y = top;
  std::string bars;
  for (const BarChart::Group& group : chart.groups) {
    bars += draw_group(group, rows, y);
    y += height_of(group);
  }
  std::string grid;
  for (const double tick : rows.axis.ticks()) {
    const double x = rows.x(tick);
    grid +=
        fmt::format(R"(<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>)"
                    R"(<text class="tick" x="{0:.1f}" y="{3:.1f}" text-anchor="middle">{4}</text>)",
                    x, top - 4, y - 4, y + 12, rows.axis.label(tick));
  }
  return svg_file(y + axis_height, chart.title, legend.svg + grid + bars);
}

std::string curve_svg(std::string_view title, std::span<const NamedReports> runs,
                      std::string_view figure) {
  using namespace html;
  for (const Curve& curve : curves()) {
    if (curve.metric != figure) continue;
    const LineChart chart = line_chart(runs, curve);
    if (chart.lines.empty()) return "";
    std::vector<std::pair<int, std::string>> names;
    for (const Line& line : chart.lines) names.emplace_back(line.run, line.name);
    const Legend legend = draw_legend(names);
    const double above = title_height + legend.height;
    const std::string lines =
        fmt::format("<g transform=\"translate(0 {:.1f})\">{}</g>", above, plot(chart));
    return svg_file(above + chart_height, title, legend.svg + lines);
  }
  return "";
}

}  // namespace slip
