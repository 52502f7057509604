#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "slipstream/runtime/config.h"

/// Where options come from besides the command line: a TOML file and the environment.
namespace slip::cli {

/// One option as a source gives it.
struct Setting {
  std::string name;
  std::string text;      // as Options::set reads it
  std::string shown_as;  // what messages call it: "--lr", "SLIP_LR", "run.toml:3: lr"
};

/// Where a command's options come from; each goes over the one before.
struct Sources {
  std::string file;  // TOML; empty: none
  std::vector<Setting> environment;
  std::vector<Setting> command_line;
};

/// Sets each in order. `set` collects key=value pairs from all sources, later ones win key by key;
/// every other option, lists too, is replaced. Throws what Options::set throws.
void set_all(const std::vector<Setting>& settings, Options& options);

/// The keys of a TOML file are the long names of options, and lists are arrays. The table [set]
/// holds what `--set` takes, and a table with a protocol's name is short for that part of it:
///
///     workers = 8
///     slow = ["rank=3,x=4", "random,x=6,p=1/n"]
///     [set]
///     max_gap = 5          # of every protocol that has it
///     hop.backup = 1       # the same as backup = 1 under [hop]
///
/// Throws Error(invalid_argument) with file, line and reason for a file that cannot be read, an
/// unknown key and a value of a type that no option has.
std::vector<Setting> read_toml(const std::string& path, const Options& options);

/// SLIP_LR_SCHEDULE is lr-schedule, and a list's items are separated by spaces. `environment` is in
/// the form of environ; empty variables count as not set.
std::vector<Setting> read_environment(const char* const* environment, const Options& options);

/// "lr-schedule" -> "SLIP_LR_SCHEDULE".
std::string variable_of(std::string_view option);

/// One line for each SLIP_* variable that is neither an option in `known` nor set by a launcher.
std::vector<std::string> unknown_variables(const char* const* environment,
                                           const std::vector<std::string>& known);

}  // namespace slip::cli
