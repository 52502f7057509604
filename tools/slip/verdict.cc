#include "slipstream/tools/slip/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace slip::cli {
namespace {

bool lies_in(const Place& place, const Place& where) {
  return std::all_of(where.begin(), where.end(), [&](const auto& coordinate) {
    return std::find(place.begin(), place.end(), coordinate) != place.end();
  });
}

// `where` with what `over` changes in it.
Place moved(Place where, const Place& over) {
  for (const auto& coordinate : over) {
    std::erase_if(where, [&](const auto& old) { return old.first == coordinate.first; });
    where.push_back(coordinate);
  }
  return where;
}

struct Figure {
  bool finished = false;
  std::optional<double> value;
};

// The mean over the places in `where`, if they are all there.
Figure figure(const Findings& findings, std::size_t run, const Place& where, const Metric& metric) {
  for (const std::string& option : findings.grid().fixed) {
    const auto names = [&](const auto& coordinate) { return coordinate.first == option; };
    if (std::none_of(where.begin(), where.end(), names)) return {};
  }
  const std::vector<Place>& places = findings.grid().places;
  double sum = 0;
  double count = 0;
  bool everywhere = true;
  for (std::size_t place = 0; place < places.size(); ++place) {
    if (!lies_in(places[place], where)) continue;
    if (!findings.complete(run, place)) return {};
    const auto here = estimate(findings.of(run, place), metric);
    everywhere = everywhere && here;
    sum += here ? here->mean : 0;
    ++count;
  }
  if (count == 0) return {};
  return {true, everywhere ? std::optional(sum / count) : std::nullopt};
}

std::optional<double> related(Expectation::Relation relation, std::optional<double> a,
                              std::optional<double> b) {
  if (!a || !b) return {};
  if (relation == Expectation::Relation::minus) return *a - *b;
  return *b == 0 ? std::nullopt : std::optional(*a / *b);
}

bool is_met(const Expectation& e, double seen) {
  if (e.value && std::abs(seen - *e.value) > e.tolerance * std::abs(*e.value)) return false;
  if (e.at_least && seen < *e.at_least) return false;
  return !e.at_most || seen <= *e.at_most;
}

std::string text(const Place& place) {
  std::string text;
  for (const auto& [option, value] : place) {
    text += fmt::format(", {}={}", option, value.empty() ? "none" : value);
  }
  return text;
}

std::string what(const Expectation& e, const std::string& run) {
  std::string line = fmt::format("{} of {}{}", e.metric, run, text(e.where));
  if (e.relation == Expectation::Relation::none) return line;
  line += e.relation == Expectation::Relation::over ? " over " : " minus ";
  const std::string place = text(e.other_where);
  if (e.other_run.empty()) return line + (place.empty() ? place : place.substr(2));
  return line + e.other_run + place;
}

std::string expected(const Expectation& e) {
  if (e.value) return fmt::format("{:.4g} ± {:.3g} %", *e.value, 100 * e.tolerance);
  if (e.at_least && e.at_most) return fmt::format("{:.4g} to {:.4g}", *e.at_least, *e.at_most);
  return e.at_least ? fmt::format("at least {:.4g}", *e.at_least)
                    : fmt::format("at most {:.4g}", *e.at_most);
}

Verdict judge(const Expectation& e, std::size_t run, const Findings& findings) {
  const Grid& grid = findings.grid();
  const Metric& metric = *find_metric(e.metric);
  Figure seen = figure(findings, run, e.where, metric);
  if (e.relation != Expectation::Relation::none) {
    const auto other = std::find(grid.runs.begin(), grid.runs.end(), e.other_run);
    const auto other_run =
        e.other_run.empty() ? run : static_cast<std::size_t>(other - grid.runs.begin());
    const Figure base = figure(findings, other_run, moved(e.where, e.other_where), metric);
    seen = {seen.finished && base.finished, related(e.relation, seen.value, base.value)};
  }
  Verdict verdict{what(e, grid.runs[run]), expected(e), "-", Verdict::Outcome::not_run};
  if (!seen.finished) return verdict;
  if (seen.value) verdict.seen = fmt::format("{:.4g}", *seen.value);
  const bool met = seen.value && is_met(e, *seen.value);
  verdict.outcome = met ? Verdict::Outcome::met : Verdict::Outcome::missed;
  return verdict;
}

}  // namespace

std::vector<Verdict> judge(std::span<const Expectation> expectations, const Findings& findings) {
  const std::vector<std::string>& runs = findings.grid().runs;
  std::vector<Verdict> verdicts;
  for (const Expectation& e : expectations) {
    for (std::size_t run = 0; run < runs.size(); ++run) {
      const bool meant = e.run == "all" ? runs[run] != e.other_run : runs[run] == e.run;
      if (meant) verdicts.push_back(judge(e, run, findings));
    }
  }
  return verdicts;
}

Table to_table(std::span<const Verdict> verdicts) {
  Table table{{"expectation", "expected", "seen", ""}, {}};
  for (const Verdict& verdict : verdicts) {
    const char* outcome = verdict.outcome == Verdict::Outcome::met      ? "met"
                          : verdict.outcome == Verdict::Outcome::missed ? "MISSED"
                                                                        : "not run";
    table.rows.push_back({verdict.what, verdict.expected, verdict.seen, outcome});
  }
  return table;
}

}  // namespace slip::cli
