#pragma once

#include <span>
#include <string>
#include <string_view>

#include "slipstream/trainer/report.h"
#include "slipstream/trainer/trace.h"

namespace slip {

/// One run on a page; report and spans are borrowed for the call.
struct PageRun {
  std::string name;  // empty: the protocol
  const Report* report = nullptr;
  std::span<const Span> spans = {};  // empty: no timeline
};

/// A page that needs nothing but itself (`--html`): headline figures, accuracy and loss against
/// time, the workers' timelines over their first iterations, figures per worker, options. For one
/// run or for several side by side. The same input gives the same bytes.
std::string html_page(std::string_view title, std::span<const PageRun> runs);

}  // namespace slip
