#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "slipstream/collectives/group_generator.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/runtime/config.h"

namespace slip::perf {

/// What `slip perf` is asked for. Sizes are text with the suffixes K, M and G.
struct PerfOptions {
  std::string begin;  // empty: the test's own
  std::string end;
  int factor = 2;
  std::int64_t iterations = 1000;
  std::int64_t warm_up = 100;
  double seconds = 0;  // above 0: in place of `iterations`
  int check = 1;
  std::string memory = "host";
  std::string json;
  std::string csv;
  std::optional<int> asked_workers;  // by default the launcher's, else 2
  int workers = 2;                   // see resolve_workers
  std::string transport = "shm";
  std::string buffers = "registered";
  std::string between;  // "2,5": the only pair of a test that works in pairs
  std::string kernel = "weighted_average";
  int inputs = 2;  // of an average
  std::string link;
  std::string inner_link;
  int hosts = 0;       // of sim; 0: one for each worker
  int group_size = 0;  // 0: everyone
  std::string groups = "repeated";
  Algorithm algorithm = Algorithm::automatic;
  Wire wire = Wire::exact;
  GroupPolicy generator = GroupPolicy::division;
  bool explain = false;

  int members() const { return group_size == 0 ? workers : group_size; }
};

/// The options by name, bound to `options`, and their one-letter forms ({"begin", "-b"}).
Options describe(PerfOptions& options);
std::map<std::string, std::string> short_names();

std::vector<std::string> test_names();
/// One line for each test, for help.
std::string tests_help();

/// Runs a test by its name: rows on standard output, and in the files that the options name. With
/// transport shm, ucx or verbs the calling process starts `workers` copies of itself by their
/// command line (or is one of them). Throws Error: invalid_argument for bad usage, anything else
/// for a run that failed, wrong results among it.
void run(const std::string& test, const PerfOptions& options);

}  // namespace slip::perf
