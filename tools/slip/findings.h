#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "slipstream/tools/slip/grid.h"
#include "slipstream/trainer/metric.h"
#include "slipstream/trainer/report.h"
#include "slipstream/trainer/table.h"

namespace slip::cli {

/// What the cases of a grid have reported, as far as they have. The grid outlives it.
class Findings {
 public:
  explicit Findings(const Grid& grid) : grid_(grid), reports_(grid.cases.size()) {}

  void add(std::size_t index, Report report) { reports_[index] = std::move(report); }

  const Grid& grid() const { return grid_; }
  const std::vector<std::optional<Report>>& reports() const { return reports_; }  // by case

  /// Of all seeds that have finished.
  std::vector<const Report*> of(std::size_t run, std::size_t place) const;
  /// All runs at one place.
  std::vector<NamedReports> at(std::size_t place) const;
  /// Whether all seeds have finished.
  bool complete(std::size_t run, std::size_t place) const;
  bool has(const Metric& metric) const;
  /// False for timing alone, where loss and accuracy say nothing or are not looked at.
  bool learns() const;

 private:
  const Grid& grid_;
  std::vector<std::optional<Report>> reports_;
};

struct TitledTable {
  std::string title;
  Table table;
};

/// Where nothing but seeds is swept, one table with a row for each run; else one for each figure,
/// runs by places. Of several seeds mean and standard deviation are shown. The median worker's time
/// is shown where something is expected of it.
std::vector<TitledTable> tables(const Findings& findings);

}  // namespace slip::cli
