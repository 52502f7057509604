#include "slipstream/tools/slip/command.h"

#include <utility>

namespace slip::cli {

Command::Command(std::string name, std::string summary, std::string example)
    : name_(std::move(name)), summary_(std::move(summary)), example_(std::move(example)) {}

void Command::add_common_options() {
  options_.section(everywhere)
      .add("config", config_file_, "TOML file of options under their long names")
      .add("log-level", log_level_, {"trace", "debug", "info", "warn", "error", "off"},
           "how much to log on stderr")
      .add("quiet", quiet_, "print results and errors only");
}

}  // namespace slip::cli
