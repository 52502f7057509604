#include "slipstream/tools/slip/grid.h"

#include <fmt/format.h>

#include <algorithm>

#include "slipstream/trainer/protocol.h"

namespace slip::cli {
namespace {

[[noreturn]] void fail(const std::string& line) { throw Error(Code::invalid_argument, line); }

template <class T>
std::size_t index_of(const std::vector<T>& items, const T& item) {
  return static_cast<std::size_t>(std::find(items.begin(), items.end(), item) - items.begin());
}

// Of `--set`, what is meant for this protocol: keys without a name go to all that have them.
std::vector<std::string> set_for(const std::string& protocol, const std::vector<std::string>& set) {
  const auto config = make_protocol_config(protocol);
  const std::vector<std::string> known = config->options().names();
  std::vector<std::string> mine;
  for (const std::string& item : set) {
    const std::string key = item.substr(0, item.find('='));
    const bool named = key.find('.') != key.npos;
    if (named || std::find(known.begin(), known.end(), key) != known.end()) mine.push_back(item);
  }
  return mine;
}

// What is meant for all protocols must make sense to one of them.
class SetItems {
 public:
  void given(const std::vector<std::string>& items) { add(items, given_); }
  void used(const std::vector<std::string>& items) { add(items, used_); }

  void refuse_unused(const std::vector<std::string>& runs) const {
    for (const std::string& item : given_) {
      if (std::find(used_.begin(), used_.end(), item) != used_.end()) continue;
      fail(fmt::format("--set {}: none of {} has this option", item, fmt::join(runs, ", ")));
    }
  }

 private:
  static void add(const std::vector<std::string>& items, std::vector<std::string>& to) {
    to.insert(to.end(), items.begin(), items.end());
  }

  std::vector<std::string> given_;
  std::vector<std::string> used_;
};

std::vector<Scenario::Run> runs_of(const Scenario& scenario,
                                   const std::vector<std::string>& protocols) {
  if (protocols.empty()) return scenario.runs;
  if (!scenario.runs.empty()) {
    fail("--protocols excludes the file's [[run]] tables; leave one of them out");
  }
  std::vector<Scenario::Run> runs;
  for (const std::string& protocol : protocols) {
    runs.push_back({protocol, "", {{"protocol", protocol, "--protocols"}}});
  }
  return runs;
}

void check_runs(const Scenario& scenario, const std::vector<std::string>& runs) {
  const auto check = [&](const std::string& source, const std::string& name) {
    if (name.empty() || index_of(runs, name) < runs.size()) return;
    fail(source + ": " + unknown_name("run", name, runs));
  };
  check("baseline", scenario.baseline);
  for (const Expectation& e : scenario.expectations) {
    if (e.run != "all") check(e.source, e.run);
    check(e.source, e.other_run);
  }
}

// The scenario's sweeps, narrowed by the command line.
std::vector<Sweep> sweeps_of(const Scenario& scenario, const std::vector<Setting>& overrides,
                             Grid& grid) {
  std::vector<Sweep> sweeps = scenario.sweeps;
  fix(sweeps, overrides);
  for (std::size_t i = 0; i < sweeps.size(); ++i) {
    if (sweeps[i].name == "seed") continue;
    if (sweeps[i].values.size() < scenario.sweeps[i].values.size()) {
      grid.fixed.push_back(sweeps[i].name);
    }
    if (sweeps[i].values.size() > 1) grid.swept.push_back(sweeps[i].name);
  }
  return sweeps;
}

// One value of each sweep, by index; the last runs fastest. False after the last combination.
bool next(std::vector<std::size_t>& at, const std::vector<Sweep>& sweeps) {
  for (std::size_t i = at.size(); i-- > 0;) {
    if (++at[i] < sweeps[i].values.size()) return true;
    at[i] = 0;
  }
  return false;
}

struct Combination {
  Place place;       // but for the seed: seeds of one place are summed up together
  std::string seed;  // where there are several, as a label has it
  std::vector<Setting> settings;
};

Combination combination_of(const std::vector<Sweep>& sweeps, const std::vector<std::size_t>& at) {
  Combination chosen;
  for (std::size_t i = 0; i < sweeps.size(); ++i) {
    const Sweep::Value& value = sweeps[i].values[at[i]];
    chosen.settings.push_back(value.setting);
    if (sweeps[i].name != "seed") {
      chosen.place.emplace_back(sweeps[i].name, value.text);
    } else if (sweeps[i].values.size() > 1) {
      chosen.seed = ", seed " + value.text;
    }
  }
  return chosen;
}

TrainConfig config_of(const std::vector<Setting>& settings) {
  TrainConfig config;
  Options options = describe_run(config);
  std::vector<Setting> of_runs;
  for (const Setting& setting : settings) {
    if (options.find(setting.name)) of_runs.push_back(setting);
  }
  set_all(of_runs, options);
  return config;
}

}  // namespace

std::string Grid::label(std::size_t place) const {
  std::vector<std::string> values;
  for (const auto& [option, value] : places[place]) {
    const bool is_swept = index_of(swept, option) < swept.size();
    if (is_swept) values.push_back(value.empty() ? "none" : value);
  }
  return fmt::format("{}", fmt::join(values, ", "));
}

Grid make_grid(const Scenario& scenario, const std::vector<std::string>& protocols,
               const std::vector<Setting>& overrides) {
  Grid grid;
  const std::vector<Scenario::Run> runs = runs_of(scenario, protocols);
  for (const Scenario::Run& run : runs) grid.runs.push_back(run.name);
  check_runs(scenario, grid.runs);
  for (const Expectation& expectation : scenario.expectations) {
    const Metric* metric = find_metric(expectation.metric);
    if (index_of(grid.expected, metric) == grid.expected.size()) grid.expected.push_back(metric);
  }
  if (!scenario.baseline.empty()) grid.baseline = index_of(grid.runs, scenario.baseline);

  const std::vector<Sweep> sweeps = sweeps_of(scenario, overrides, grid);
  SetItems items;
  std::vector<std::size_t> at(sweeps.size(), 0);
  do {
    const Combination chosen = combination_of(sweeps, at);
    const std::size_t place = index_of(grid.places, chosen.place);
    if (place == grid.places.size()) grid.places.push_back(chosen.place);
    const std::string label = grid.label(place);
    for (std::size_t run = 0; run < runs.size(); ++run) {
      std::vector<Setting> settings = scenario.settings;
      for (const auto* more : {&chosen.settings, &runs[run].settings, &overrides}) {
        settings.insert(settings.end(), more->begin(), more->end());
      }
      Grid::Case one{run, place, runs[run].name + (label.empty() ? "" : ", " + label) + chosen.seed,
                     config_of(settings)};
      items.given(one.config.set);
      one.config.set =
          in_case(one.name, [&] { return set_for(one.config.protocol, one.config.set); });
      items.used(one.config.set);
      grid.cases.push_back(std::move(one));
    }
  } while (next(at, sweeps));
  items.refuse_unused(grid.runs);
  return grid;
}

}  // namespace slip::cli
