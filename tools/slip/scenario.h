#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/runtime/config.h"
#include "slipstream/tools/slip/sources.h"
#include "slipstream/tools/slip/train_config.h"

/// The file that `slip compare --config` takes: options as every command takes them, and on top of
/// them what makes an experiment of one scenario.
namespace slip::cli {

/// Where in a sweep: swept options, each with one of its values as text.
using Place = std::vector<std::pair<std::string, std::string>>;

/// An option with several values. "graph", or for what `--set` takes "hop.max_gap".
struct Sweep {
  struct Value {
    std::string text;
    Setting setting;
  };
  std::string name;
  std::vector<Value> values;
};

/// What the results are held against. The figure is `metric` of `run` at `where`, averaged over
/// what `where` leaves open; divided by (`over`) or less (`minus`) that of `other_run` at
/// `other_where`, where it is relative.
struct Expectation {
  enum class Relation { none, over, minus };

  std::string source;  // "hop.toml:12"
  std::string metric;  // a name of trainer/metric.h
  std::string run;     // "all": each run by itself, but for `other_run`
  Place where;
  Relation relation = Relation::none;
  std::string other_run;  // empty: the same
  Place other_where;      // goes over `where`

  std::optional<double> value;
  double tolerance = 0;  // share of `value`
  std::optional<double> at_least;
  std::optional<double> at_most;
};

struct Scenario {
  struct Run {
    std::string name;
    std::string source;
    std::vector<Setting> settings;  // over those of all runs
  };

  std::string title;
  std::string text;      // Markdown
  std::string baseline;  // a run; empty: the first
  std::vector<Setting> settings;
  std::vector<Run> runs;  // empty: `protocols` says
  std::vector<Sweep> sweeps;
  std::vector<Expectation> expectations;
};

/// What one run of a scenario may set: every option of `slip train` but where it meets its peers
/// and leaves its results. `config` must stay where it is.
Options describe_run(TrainConfig& config);

/// Reads a scenario file. Besides `options` (those of `slip compare`) its top level has
///
///     title = "..."                  # of the page, and `text` below it, in Markdown
///     baseline = "standard"          # the run that speed-ups refer to; by default the first
///
///     [[run]]                        # in place of `protocols`: options that differ
///     name = "backup"
///     hop.backup = 1
///
///     [sweep]                        # all combinations are run; seeds are averaged
///     graph = ["ring", "double-ring"]
///     seed = [1, 2, 3]
///
///     [short]                        # with `short_form`: goes over the top level,
///     iterations = 100
///     sweep.seed = [1]               # and over the sweep
///
///     [[expect]]
///     metric = "seconds_per_iteration"
///     run = "standard"               # or "all"
///     where = { graph = "ring" }     # without it, the mean over the sweep
///     over = "backup"                # or minus: relative to another run or place of the sweep
///     at_least = 1.35                # at_most; or value and its relative tolerance, where value
///                                    # may be a table: { ring = 2.22, double-ring = 2.55 }
///
/// An option that `short` gives one value is no longer swept. Throws Error(invalid_argument): one
/// line with file, line and reason.
Scenario read_scenario(const std::string& path, const Options& options, bool short_form);

/// Leaves every sweep that `settings` go over only the value that they give it.
void fix(std::vector<Sweep>& sweeps, const std::vector<Setting>& settings);

}  // namespace slip::cli
