#include "slipstream/trainer/html.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "slipstream/trainer/axis_internal.h"
#include "slipstream/trainer/html_internal.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

/// `n` workers; the last computes four times as long, the others wait for it.
struct Example {
  Report report;
  std::vector<Span> spans;

  explicit Example(int n, std::string protocol = "hop") {
    report.protocol = std::move(protocol);
    report.transport = "sim";
    report.workers = n;
    report.seconds = 0.4;
    report.target = Report::Target{"accuracy", 0.5, 0.2};
    for (int rank = 0; rank < n; ++rank) {
      const bool slow = rank == n - 1;
      report.iterations.push_back(10);
      report.per_worker.push_back({rank, 10, 0, slow ? 0.4 : 0.1, slow ? 0 : 0.3, {}, 1000});
      for (Iteration k = 0; k < 10; ++k) {
        const Time begin = 40ms * k;
        const Time done = begin + (slow ? 40ms : 10ms);
        spans.push_back({rank, SpanKind::compute, k, begin, done});
        if (!slow) spans.push_back({rank, SpanKind::wait, k, done, begin + 40ms});
      }
    }
    for (Iteration k = 0; k < 10; ++k) {
      const double x = static_cast<double>(k);
      report.curve.push_back({0.04 * x, k, 1 / (1 + x), x / 10, 0.1, {}});
    }
  }

  PageRun run(std::string name = "") const { return {std::move(name), &report, spans}; }
};

int count(std::string_view text, std::string_view what) {
  int found = 0;
  for (auto at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++found;
  return found;
}

void expect_none(const std::string& text, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts) EXPECT_EQ(count(text, part), 0) << part;
}

TEST(HtmlPage, NeedsNothingFromTheNetwork) {
  const Example a(4);
  const Example b(4, "all_reduce");
  const std::string page = html_page("two", std::vector<PageRun>{a.run(), b.run()});
  expect_none(page, {"http:", "https:", "src=", "<link", "@import", "url("});
  EXPECT_EQ(count(page, "</html>"), 1);
}

TEST(HtmlPage, EscapesEveryTextThatItIsGiven) {
  Example example(2, "<script>alert(\"1\")</script>&'");
  example.report.options = {{"<i>name", "\"<u>value"}};
  example.report.transport = "<em>";
  const std::string page =
      html_page("<h1>title", std::vector<PageRun>{example.run(), example.run("<hr>")});
  expect_none(page, {"<script>alert", "<i>name", "<u>value", "<em>", "<h1>title", "<hr>"});
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"));
  EXPECT_THAT(page, HasSubstr("&quot;&lt;u&gt;value"));
}

TEST(HtmlPage, OneRunHasTilesAndSeveralHaveATable) {
  const Example a(4);
  const Example b(4, "all_reduce");
  const std::string one = html_page("one", std::vector<PageRun>{a.run()});
  const std::string two = html_page("two", std::vector<PageRun>{a.run(), b.run()});
  EXPECT_THAT(one, HasSubstr("class=\"tiles\""));
  EXPECT_THAT(one, Not(HasSubstr("class=\"headline\"")));
  EXPECT_THAT(two, HasSubstr("class=\"headline\""));
  EXPECT_EQ(count(one, "<svg class=\"chart\""), 4);
  EXPECT_EQ(count(two, "<polyline"), 8);
  EXPECT_EQ(count(two, "<svg class=\"timeline\""), 2);
}

TEST(HtmlPage, TheSameInputGivesTheSameBytes) {
  const Example a(4);
  const std::vector<PageRun> runs{a.run()};
  EXPECT_EQ(html_page("x", runs), html_page("x", runs));
}

TEST(HtmlPage, HoldsWithNothingToShow) {
  EXPECT_THAT(html_page("none", {}), HasSubstr("</html>"));
  const Report empty;
  EXPECT_THAT(html_page("empty", std::vector<PageRun>{{"", &empty, {}}}),
              Not(HasSubstr("<svg class=\"timeline\"")));
}

TEST(HtmlPage, ADivergedLossLeavesNoBadNumberInThePlot) {
  Example example(2);
  example.report.curve[3].loss = std::nan("");
  example.report.curve[4].loss = std::numeric_limits<double>::infinity();
  expect_none(html_page("x", std::vector<PageRun>{example.run()}), {"nan", "inf"});
}

TEST(HtmlTimeline, AStragglersBarIsAsMuchLongerAsItIsSlower) {
  const Example example(4);
  const PageRun run = example.run();
  const std::string svg = html::draw_timeline(run, html::first_iterations(std::span(&run, 1)));
  const auto width = [&](int rank) {
    const std::size_t tip = svg.find(fmt::format("worker {}, iteration 1: compute", rank));
    const std::size_t attribute = svg.rfind("width=\"", tip);
    return std::stod(svg.substr(attribute + 7));
  };
  EXPECT_NEAR(width(3) / width(0), 4, 0.05);
  EXPECT_THAT(svg, HasSubstr("4.0× · 3"));
  EXPECT_EQ(count(svg, "rank slow"), 1);
}

TEST(HtmlTimeline, RunsOfOnePageShareOneScale) {
  const Example slow(2);
  Example fast(2, "prague");
  for (Span& span : fast.spans) {
    span.begin /= 2;
    span.end /= 2;
  }
  const std::vector<PageRun> runs{slow.run(), fast.run()};
  EXPECT_EQ(html::first_iterations(runs).end, 400ms);
  const std::vector<PageRun> alone{fast.run()};
  EXPECT_EQ(html::first_iterations(alone).end, 200ms);
}

TEST(HtmlTimeline, OfManyWorkersTheSlowestAreShown) {
  const Example example(500);
  const std::vector<std::size_t> shown = html::shown_workers(example.report, 32);
  EXPECT_EQ(shown.size(), 32u);
  EXPECT_EQ(shown.back(), 499u);
  EXPECT_EQ(std::adjacent_find(shown.begin(), shown.end(), std::greater_equal<>()), shown.end());
}

TEST(HtmlTimeline, SpansThatMakeNoSenseAreLeftOut) {
  Example example(2);
  example.spans.push_back({7, SpanKind::wait, 0, 0ms, 10ms});
  example.spans.push_back({0, static_cast<SpanKind>(-3), 0, 0ms, 10ms});
  example.spans.push_back({0, SpanKind::send, 0, 30ms, 10ms});
  const PageRun run = example.run();
  const std::string svg = html::draw_timeline(run, html::first_iterations(std::span(&run, 1)));
  expect_none(svg, {"worker 7", "unknown", ": send"});
}

TEST(Axis, TicksAreRoundAndWithinTheAxis) {
  const Axis axis = Axis::linear(0, 18.3, 10);
  EXPECT_THAT(axis.ticks(), ElementsAre(0, 2, 4, 6, 8, 10, 12, 14, 16, 18));
  EXPECT_EQ(axis.high(), 18.3);
  EXPECT_EQ(axis.label(4), "4");
  EXPECT_EQ(Axis::linear(0, 0.4, 4).label(0.2), "0.2");
  EXPECT_DOUBLE_EQ(axis.position(9.15), 0.5);
  EXPECT_EQ(axis.position(100), 1);
}

TEST(Axis, RoundedAxesBeginAndEndAtATick) {
  const Axis axis = Axis::rounded(0.11, 0.96, 6);
  EXPECT_NEAR(axis.low(), 0, 1e-12);
  EXPECT_NEAR(axis.high(), 1, 1e-12);
}

TEST(Axis, LogarithmicAxesCoverTheirPowersOfTen) {
  const Axis axis = Axis::logarithmic(3e-6, 40);
  EXPECT_DOUBLE_EQ(axis.low(), 1e-6);
  EXPECT_DOUBLE_EQ(axis.high(), 100);
  EXPECT_EQ(axis.label(1e-6), "10⁻⁶");
  EXPECT_EQ(axis.label(0.01), "0.01");
  EXPECT_NEAR(axis.position(1e-2), 0.5, 1e-9);
}

TEST(Axis, HoldsWhereAllValuesAreEqual) {
  for (const double value : {0.0, 5.0, -2.0, 1e-300, 1e15}) {
    const Axis axis = Axis::linear(value, value, 6);
    EXPECT_LT(axis.low(), axis.high());
    EXPECT_FALSE(axis.ticks().empty()) << value;
    EXPECT_TRUE(std::isfinite(axis.position(value)));
  }
}

}  // namespace
}  // namespace slip
