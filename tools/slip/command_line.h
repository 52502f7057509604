#pragma once

#include <string>

#include "slipstream/tools/slip/command.h"

namespace slip::cli {

/// What a command line asks for.
struct Request {
  Command* command = nullptr;  // the subcommand it names, already when a later part of it is wrong
  std::string print;           // help or version: to be printed instead of running
};

/// Reads the command line and sets the command's options from the TOML file, the environment and
/// the command line, each over the one before. Throws Error(invalid_argument): one line that names
/// what is wrong and says what is allowed. `request` is filled as far as reading came.
void read_command_line(const Commands& commands, int argc, const char* const* argv,
                       const char* const* environment, Request& request);

}  // namespace slip::cli
