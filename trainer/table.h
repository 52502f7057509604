#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "slipstream/trainer/report.h"

namespace slip {

/// Cells as text; every row is as long as the header.
struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};

/// Columns aligned for a terminal: the first to the left, the others (numbers) to the right.
std::string to_text(const Table& table);
std::string to_markdown(const Table& table);

/// A report and the name it goes by, where the protocol alone would not tell it from the others.
struct NamedReport {
  std::string name;
  const Report* report;
};

/// Against the first report: of the time to target where any report has a target, else of the
/// seconds per iteration. Empty where either side has no such number.
std::vector<std::optional<double>> speed_ups(std::span<const NamedReport> reports);

/// What `slip compare` prints, a row per report: time to target, seconds per iteration, speed-up,
/// the largest gap, late updates, final accuracy (loss where nobody has an accuracy). '-' where
/// there is no such number or the target was missed.
Table comparison(std::span<const NamedReport> reports);

}  // namespace slip
