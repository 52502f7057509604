// Plots in files of their own.
#include "slipstream/trainer/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "slipstream/trainer/chart_internal.h"

namespace slip {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;
using testing::SizeIs;

int count(std::string_view text, std::string_view what) {
  int found = 0;
  for (auto at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++found;
  return found;
}

/// Widths of the bars of one colour.
std::vector<double> widths(const std::string& svg, int colour) {
  const std::string bar = "<rect class=\"c" + std::to_string(colour) + "\" ";
  std::vector<double> widths;
  for (auto at = svg.find(bar); at != svg.npos; at = svg.find(bar, at + 1)) {
    if (svg.compare(svg.find(" height=", at), 12, " height=\"12\"") == 0) continue;  // a legend's
    widths.push_back(std::stod(svg.substr(svg.find("width=\"", at) + 7)));
  }
  return widths;
}

TEST(BarChart, BarsAreAsLongAsTheirValues) {
  const std::string svg = bar_chart_svg(
      {"Seconds", {"ring", "star"}, {{"standard", {4.0, 2.0}}, {"skip", {1.0, std::nullopt}}}});
  const auto ring = widths(svg, 0);
  const auto star = widths(svg, 1);
  ASSERT_THAT(ring, SizeIs(2));
  ASSERT_THAT(star, SizeIs(1)) << "a value that is not there has no bar";
  EXPECT_NEAR(ring[0] / ring[1], 4, 0.05);
  EXPECT_NEAR(ring[0] / star[0], 2, 0.05);
  EXPECT_THAT(svg, AllOf(HasSubstr(">standard<"), HasSubstr(">skip<"), HasSubstr(">star<")));
}

TEST(BarChart, OneSeriesNeedsNoLegend) {
  const BarChart chart{"Seconds", {"only"}, {{"a", {1.0}}}};
  EXPECT_THAT(bar_chart_svg(chart), Not(HasSubstr(">only<")));
}

TEST(BarChart, HoldsWithNothingToShow) {
  EXPECT_THAT(bar_chart_svg({}), AllOf(HasSubstr("</svg>"), Not(HasSubstr("nan"))));
  EXPECT_THAT(bar_chart_svg({"t", {"s"}, {{"a", {std::nullopt}}}}), Not(HasSubstr("nan")));
}

TEST(Svg, NeedsNothingButItselfAndEscapesItsTexts) {
  const std::string svg = bar_chart_svg({"<a> & \"b\"", {"<u>", "&"}, {{"<i>", {1.0, 2.0}}}});
  for (const char* none : {"var(", "href", "url(", "<a>", "<u>", "<i>", "script"}) {
    EXPECT_EQ(count(svg, none), 0) << none;
  }
  EXPECT_EQ(count(svg, "http"), 1) << "the name of the format alone";
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme: dark"));
}

Report with_curve(double seconds_each, std::vector<double> losses) {
  Report report;
  report.transport = "sim";
  for (std::size_t k = 0; k < losses.size(); ++k) {
    report.curve.push_back({.seconds = seconds_each * static_cast<double>(k),
                            .iteration = 10 * k,
                            .loss = losses[k],
                            .accuracy = {},
                            .spread = {},
                            .worst_accuracy = {}});
  }
  return report;
}

html::Curve loss() { return html::curves()[1]; }

TEST(Curve, IsTheMeanOfTheReportsEvaluationByEvaluation) {
  const Report a = with_curve(1, {4, 2, 1});
  const Report b = with_curve(3, {2, 1});
  const NamedReports run{"hop", {&a, &b}};
  const html::LineChart chart = html::line_chart(std::span(&run, 1), loss());
  ASSERT_THAT(chart.lines, SizeIs(1));
  EXPECT_THAT(chart.lines[0].points, ElementsAre(Pair(0, 3), Pair(2, 1.5)));
  EXPECT_EQ(chart.time_axis, "seconds (virtual)");
}

TEST(Curve, LeavesOutWhatIsNoNumber) {
  const Report a = with_curve(1, {4, std::numeric_limits<double>::quiet_NaN(), 1});
  const NamedReports run{"hop", {&a}};
  EXPECT_THAT(html::line_chart(std::span(&run, 1), loss()).lines[0].points,
              ElementsAre(Pair(0, 4), Pair(2, 1)));
}

TEST(Curve, ALinePerRunThatHasOneAndNoFileWithoutAny) {
  const Report a = with_curve(1, {4, 2});
  const Report empty;
  const std::vector<NamedReports> runs{{"none", {}}, {"empty", {&empty}}, {"hop", {&a}}};
  const std::string svg = curve_svg("Loss", runs, "loss");
  EXPECT_EQ(count(svg, "<polyline"), 1);
  EXPECT_THAT(svg, AllOf(HasSubstr("class=\"line c2 dash0\""), HasSubstr(">hop<")));
  EXPECT_EQ(curve_svg("Accuracy", runs, "accuracy"), "");
}

TEST(Tick, ALabelAtTheEdgeStaysWithinThePlot) {
  EXPECT_THAT(html::tick_text(100, 10, "100000", 640), HasSubstr("x=\"100.0\""));
  EXPECT_THAT(html::tick_text(635, 10, "100000", 640), HasSubstr("x=\"616.6\""));
}

}  // namespace
}  // namespace slip
