#include "slipstream/tools/slip/command.h"

#include <fmt/format.h>

#include <new>
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

void Command::configure(const Sources& sources) {
  if (!sources.file.empty()) set_all(read_toml(sources.file, options_), options_);
  set_all(sources.environment, options_);
  set_all(sources.command_line, options_);
}

Status status_of(const std::exception& exception) {
  if (const auto* error = dynamic_cast<const Error*>(&exception)) return error->status();
  if (dynamic_cast<const std::bad_alloc*>(&exception)) {
    return {Code::out_of_memory,
            "not enough memory; take fewer workers or a smaller model, or raise the limit "
            "(ulimit -v)"};
  }
  return {Code::io, exception.what()};
}

std::string value_name(const Option& option) {
  if (const auto* choice = std::get_if<Option::Choice>(&option.field)) {
    return fmt::format("{}", fmt::join(choice->names, "|"));
  }
  switch (option.kind()) {
    case OptionKind::flag:
      return "";
    case OptionKind::integer:
      return "N";
    case OptionKind::number:
      return "X";
    case OptionKind::list:
      return "TEXT...";
    case OptionKind::text:
      return "TEXT";
  }
  return "";
}

std::string description(const Option& option) {
  const std::string text = option.text();
  const bool shown = option.kind() != OptionKind::flag && !text.empty() && text != "none";
  return shown ? fmt::format("{} [{}]", option.doc, text) : option.doc;
}

}  // namespace slip::cli
