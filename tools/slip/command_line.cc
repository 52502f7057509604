#include "slipstream/tools/slip/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>

#include "slipstream/tools/slip/sources.h"
#include "slipstream/version.h"

namespace slip::cli {
namespace {

// One of our options beside CLI11's, which does nothing but split the command line: values stay
// text and are read by Options::set, as those of the other sources are.
struct Bound {
  const Option* option;
  CLI::Option* cli;
};

Bound bind(const Option& option, const Command& command, CLI::App& app) {
  std::string names = "--" + option.name;
  const auto short_name = command.short_names().find(option.name);
  if (short_name != command.short_names().end()) names = short_name->second + "," + names;
  const bool flag = option.kind() == OptionKind::flag;
  CLI::Option* cli = flag ? app.add_flag(names) : app.add_option(names);
  cli->description(description(option))->type_name(value_name(option))->group(option.section);
  cli->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return {&option, cli};
}

std::vector<Setting> given(const std::vector<Bound>& bounds) {
  std::vector<Setting> settings;
  for (const auto& [option, cli] : bounds) {
    const std::vector<std::string>& values = cli->results();
    if (values.empty()) continue;
    const bool list = option->kind() == OptionKind::list;
    settings.push_back({option->name,
                        list ? fmt::format("{}", fmt::join(values, " ")) : values.back(),
                        "--" + option->name});
  }
  return settings;
}

std::string config_file(const std::vector<Setting>& settings, std::string otherwise) {
  for (const Setting& setting : settings) {
    if (setting.name == "config") otherwise = setting.text;
  }
  return otherwise;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

// The first of the words that CLI11 could not place, as an error.
void refuse(const std::vector<std::string>& words, const CLI::App& app) {
  for (const std::string& word : words) {
    if (!word.starts_with("-") || word == "-" || word == "--") continue;
    const std::string name = word.substr(0, word.find('='));
    throw Error(Code::invalid_argument, unknown_name("option", name, option_names(app)));
  }
  if (!words.empty()) {
    throw Error(Code::invalid_argument,
                fmt::format("unexpected argument '{}'; allowed are options only", words.front()));
  }
}

std::string first_line(std::string_view text) {
  return std::string(text.substr(0, text.find('\n')));
}

// argv up to a lone "--", and what follows it, which is never ours.
std::pair<std::vector<std::string>, std::vector<std::string>> split(int argc,
                                                                    const char* const* argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  const auto dashes = std::find(words.begin(), words.end(), "--");
  std::vector<std::string> rest;
  if (dashes != words.end()) rest.assign(dashes + 1, words.end());
  words.erase(dashes, words.end());
  return {std::move(words), std::move(rest)};
}

class Reader {
 public:
  explicit Reader(const Commands& commands)
      : app_("Trains on workers that need not wait for the slowest of them.", "slip") {
    set_up(app_, "slip train --task targets --workers 4 --iterations 100");
    app_.require_subcommand(0, 1);
    for (const auto& command : commands) {
      CLI::App* app = app_.add_subcommand(command->name(), command->summary());
      set_up(*app, command->example());
      if (command->arguments_are_a_program()) app->prefix_command();
      Entry entry{command.get(), app, {}};
      for (const Option& option : command->options().items()) {
        entry.bounds.push_back(bind(option, *command, *app));
      }
      entries_.push_back(std::move(entry));
    }
    // What every command has may also stand before it.
    for (const Option& option : commands.front()->options().items()) {
      if (option.section == Command::everywhere) {
        bounds_.push_back(bind(option, *commands.front(), app_));
      }
    }
  }

  void read(int argc, const char* const* argv, const char* const* environment, Request& request) {
    auto [words, after_dashes] = split(argc, argv);
    std::reverse(words.begin(), words.end());  // as CLI11 takes them
    try {
      app_.parse(std::move(words));
    } catch (const CLI::CallForHelp&) {
      if (const Entry* entry = chosen()) request.command = entry->command;
      request.print = help();
      return;
    } catch (const CLI::CallForVersion& version) {
      request.print = first_line(version.what()) + "\n";
      return;
    } catch (const CLI::ParseError& error) {
      if (const Entry* entry = chosen()) request.command = entry->command;
      refuse_parse(first_line(error.what()), request.command);
    }
    const Entry* entry = chosen();
    if (!entry) refuse_no_command();
    request.command = entry->command;
    refuse(app_.remaining(), app_);
    take_arguments(*entry, std::move(after_dashes));
    set_options(*entry, environment);
  }

 private:
  struct Entry {
    Command* command;
    CLI::App* app;
    std::vector<Bound> bounds;
  };

  static void set_up(CLI::App& app, const std::string& example) {
    app.set_version_flag("--version", fmt::format("slip {}", version));
    app.footer("\nExample: " + example);
    app.allow_extras();  // they are refused here, with the nearest name
  }

  const Entry* chosen() const {
    const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                    [](const Entry& e) { return e.app->parsed(); });
    return entry == entries_.end() ? nullptr : &*entry;
  }

  std::string help() const {
    const Entry* entry = chosen();
    if (!entry) return app_.help();
    set_all(given(entry->bounds), entry->command->options());
    std::string text = app_.help("", CLI::AppFormatMode::Normal);
    // CLI11 does not know of the arguments that a command takes by itself.
    const std::string usage = "[OPTIONS]";
    if (const std::string& rest = entry->command->arguments_name(); !rest.empty()) {
      text.insert(text.find(usage) + usage.size(), " " + rest);
    }
    return text + entry->command->more_help();
  }

  // "--lr: 1 required X missing", which is the one thing that CLI11 itself can find wrong here.
  [[noreturn]] static void refuse_parse(const std::string& line, const Command* command) {
    const std::string name = line.substr(0, line.find(':'));
    const Option* option =
        command && name.starts_with("--") ? command->options().find(name.substr(2)) : nullptr;
    throw Error(
        Code::invalid_argument,
        option ? fmt::format("{} has no value; allowed are {}", name, option->allowed()) : line);
  }

  [[noreturn]] void refuse_no_command() const {
    std::vector<std::string> names;
    for (const Entry& entry : entries_) names.push_back(entry.command->name());
    const std::vector<std::string> words = app_.remaining();
    if (words.empty()) {
      throw Error(Code::invalid_argument,
                  fmt::format("no command; allowed are {}", fmt::join(names, ", ")));
    }
    if (words.front().starts_with("-")) refuse(words, app_);
    throw Error(Code::invalid_argument, unknown_name("command", words.front(), names));
  }

  static void take_arguments(const Entry& entry, std::vector<std::string> after_dashes) {
    Command& command = *entry.command;
    std::vector<std::string> arguments = entry.app->remaining();
    if (command.arguments_name().empty()) {
      arguments.insert(arguments.end(), after_dashes.begin(), after_dashes.end());
      refuse(arguments, *entry.app);
      return;
    }
    const auto options_end =
        command.arguments_are_a_program()
            ? std::find_if(arguments.begin(), arguments.end(),
                           [](const std::string& word) { return !word.starts_with("-"); })
            : arguments.end();
    for (auto word = arguments.begin(); word != options_end; ++word) {
      if (word->starts_with("-")) refuse({*word}, *entry.app);
    }
    arguments.insert(arguments.end(), after_dashes.begin(), after_dashes.end());
    command.set_arguments(std::move(arguments));
  }

  void set_options(const Entry& entry, const char* const* environment) const {
    Sources sources;
    sources.environment = read_environment(environment, entry.command->options());
    sources.command_line = given(bounds_);
    for (Setting& setting : given(entry.bounds)) {
      sources.command_line.push_back(std::move(setting));
    }
    // The file's name is itself an option, of the sources that go over the file.
    sources.file = config_file(sources.command_line, config_file(sources.environment, ""));
    entry.command->configure(sources);
  }

  CLI::App app_;
  std::vector<Bound> bounds_;
  std::vector<Entry> entries_;
};

}  // namespace

void read_command_line(const Commands& commands, int argc, const char* const* argv,
                       const char* const* environment, Request& request) {
  Reader(commands).read(argc, argv, environment, request);
}

}  // namespace slip::cli
