#include <memory>

#include "slipstream/tools/slip/command.h"
#include "slipstream/tools/slip/compare.h"
#include "slipstream/tools/slip/info.h"
#include "slipstream/tools/slip/perf.h"
#include "slipstream/tools/slip/run.h"
#include "slipstream/tools/slip/train.h"

namespace slip::cli {

Commands make_commands() {
  Commands commands;
  commands.push_back(make_train_command());
  commands.push_back(make_compare_command());
  commands.push_back(make_run_command());
  commands.push_back(make_perf_command());
  commands.push_back(make_info_command());
  return commands;
}

}  // namespace slip::cli
