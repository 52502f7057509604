#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/trainer/chart_internal.h"
#include "slipstream/trainer/html.h"

#pragma GCC visibility push(hidden)

namespace slip::html {

/// Three digits and a unit: "10.2 ms", "1.34 GB".
std::string format_seconds(double seconds);
std::string format_bytes(double bytes);

/// The page's style sheet; what chooses light or dark before the page is drawn; the rest of the
/// script, for its end.
std::string style();
extern const char* const theme_script;
extern const char* const script;

/// From the first span to where a middling worker ends its first iterations: the same stretch for
/// all runs of a page, so that a bar has the same length everywhere.
struct Window {
  Time begin{0};
  Time end{0};
};

Window first_iterations(std::span<const PageRun> runs);

/// How many times longer than the middle worker each computes per iteration; 1 where unknown.
/// By the order of `report.per_worker`.
std::vector<double> slowness(const Report& report);

/// Indices into report.per_worker, at most `limit`: the slowest, and the others evenly.
std::vector<std::size_t> shown_workers(const Report& report, std::size_t limit);

/// A row per worker, a bar per span.
std::string draw_timeline(const PageRun& run, const Window& window);

/// The bars' colours, named.
std::string timeline_legend();

}  // namespace slip::html

#pragma GCC visibility pop
