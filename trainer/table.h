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
/// As a table of Markdown.
std::string to_markdown(const Table& table);

/// Reports that differ in their seed alone, and the name they go by.
struct NamedReports {
  std::string name;  // empty: the protocol
  std::vector<const Report*> reports;
};

/// Against the first: of the time to target where any report has a target, else of the seconds per
/// iteration. Empty where either side has no such number.
std::vector<std::optional<double>> speed_ups(std::span<const NamedReports> runs);

/// What `slip compare` prints, a row per run: time to target, seconds per iteration, speed-up, the
/// largest gap, late updates, final accuracy (loss where nobody has an accuracy); means over the
/// seeds. '-' where there is no such number or the target was missed. With `medians` the seconds
/// per iteration of the median worker stand beside those of all.
Table comparison(std::span<const NamedReports> runs, bool medians = false);

}  // namespace slip
