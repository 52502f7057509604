#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/perf/statistics.h"

namespace slip::perf {

/// One size. What bw and rate count is the test's affair: docs/performance.md.
struct Row {
  std::size_t size = 0;  // bytes
  std::int64_t iterations = 0;
  Statistics time;                     // microseconds
  double bw = 0;                       // GB/s
  double rate = 0;                     // million messages per second
  std::optional<std::uint64_t> wrong;  // empty: not checked
};

using Environment = std::vector<std::pair<std::string, std::string>>;

/// `# name: value` for each.
std::string comment_lines(const Environment& environment);
/// The header, and a row under it.
std::string header_line();
std::string row_line(const Row& row);

std::string to_csv(const std::vector<Row>& rows);
/// {"environment": {...}, "rows": [{column: value}]}; `wrong` is null where nothing was checked.
std::string to_json(const Environment& environment, const std::vector<Row>& rows);

}  // namespace slip::perf
