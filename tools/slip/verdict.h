#pragma once

#include <span>
#include <string>
#include <vector>

#include "slipstream/tools/slip/findings.h"
#include "slipstream/tools/slip/scenario.h"

namespace slip::cli {

/// An expectation beside what was seen.
struct Verdict {
  enum class Outcome { met, missed, not_run };

  std::string what;      // "seconds_per_iteration of standard over backup, graph=ring"
  std::string expected;  // "at least 1.35"
  std::string seen;
  Outcome outcome = Outcome::not_run;
};

/// Every expectation, one that is for all runs once for each. What the command line has left out,
/// or what has not finished, is `not_run`; a figure that a finished run does not have is a miss.
std::vector<Verdict> judge(std::span<const Expectation> expectations, const Findings& findings);

Table to_table(std::span<const Verdict> verdicts);

}  // namespace slip::cli
