#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "slipstream/tools/slip/scenario.h"
#include "slipstream/tools/slip/train_config.h"
#include "slipstream/trainer/metric.h"

namespace slip::cli {

/// A scenario spread out: every run at every place of the sweep, with every seed.
struct Grid {
  struct Case {
    std::size_t run;
    std::size_t place;
    std::string name;  // "backup, ring, seed 2"
    TrainConfig config;
  };

  std::vector<std::string> runs;
  std::size_t baseline = 0;             // index of a run
  std::vector<Place> places;            // seeds left out; a single empty one where nothing is swept
  std::vector<std::string> swept;       // the options in which places differ
  std::vector<Case> cases;              // in the order in which they are run
  std::vector<std::string> fixed;       // swept by the scenario, but not with these overrides
  std::vector<const Metric*> expected;  // what expectations are about, each once

  /// The place's values of what is swept: "ring, shm".
  std::string label(std::size_t place) const;
};

/// `protocols` are the runs where the scenario has none. `overrides`, environment and command line,
/// go over everything in the scenario. Throws Error(invalid_argument).
Grid make_grid(const Scenario& scenario, const std::vector<std::string>& protocols,
               const std::vector<Setting>& overrides);

/// Does `work` for one case of a grid; its errors begin with the name of the case.
template <class Work>
auto in_case(const std::string& name, Work&& work) {
  try {
    return work();
  } catch (const Error& error) {
    throw Error(error.code(), name + ": " + error.what(), error.peer());
  }
}

}  // namespace slip::cli
