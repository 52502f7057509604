#pragma once

#include <exception>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "slipstream/runtime/config.h"
#include "slipstream/tools/slip/sources.h"

namespace slip::cli {

/// What `main` returns. `failed` is also what a failed worker leaves behind.
enum ExitCode : int { done = 0, failed = 1, bad_usage = 2 };

/// One subcommand: a table of options, bound to the fields of the derived class, and what to do
/// once they are set. Lives on the heap, since the table points into it.
class Command {
 public:
  Command(std::string name, std::string summary, std::string example);
  virtual ~Command() = default;

  /// The section of the options that every command has.
  static constexpr const char* everywhere = "Everywhere";
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  /// Sets the options, once. Throws Error(invalid_argument).
  virtual void configure(const Sources& sources);

  /// Called once, with all options set. Returns an ExitCode. Throws Error: invalid_argument for bad
  /// usage, anything else for a run that failed.
  virtual int run() = 0;

  /// Goes below the options in `--help`, for which those of the command line are already set.
  virtual std::string more_help() const { return {}; }

  const std::string& name() const { return name_; }
  const std::string& summary() const { return summary_; }
  const std::string& example() const { return example_; }

  Options& options() { return options_; }
  const Options& options() const { return options_; }

  /// Option name to its one-letter form with the dash: {"workers", "-n"}.
  const std::map<std::string, std::string>& short_names() const { return short_names_; }

  /// Name of what follows the options in usage lines ("TEST"); empty: nothing may follow.
  const std::string& arguments_name() const { return arguments_name_; }
  /// What the first argument may be, where that is known.
  virtual std::vector<std::string> known_arguments() const { return {}; }
  /// Everything from the first argument on belongs to a program of the user.
  bool arguments_are_a_program() const { return arguments_are_a_program_; }
  void set_arguments(std::vector<std::string> arguments) { arguments_ = std::move(arguments); }

  bool quiet() const { return quiet_; }
  const std::string& log_level() const { return log_level_; }
  const std::string& config_file() const { return config_file_; }

 protected:
  /// Options that every command has; derived classes call it after they added theirs.
  void add_common_options();

  Options options_;
  std::map<std::string, std::string> short_names_;
  std::string arguments_name_;
  bool arguments_are_a_program_ = false;
  std::vector<std::string> arguments_;

 private:
  std::string name_;
  std::string summary_;
  std::string example_;
  std::string config_file_;
  std::string log_level_ = "warn";
  bool quiet_ = false;
};

/// What help shows of an option: "N" between its name and its description, with the default.
std::string value_name(const Option& option);
std::string description(const Option& option);

/// What went wrong, as a user is told: also where it was not an Error.
Status status_of(const std::exception& exception);

using Commands = std::vector<std::unique_ptr<Command>>;

/// All subcommands, in the order of the help.
Commands make_commands();

}  // namespace slip::cli
