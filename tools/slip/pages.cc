// Writes the manual pages and bash's completion for `slip` into a folder, out of the tables of
// options that --help shows.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "slipstream/runtime/config.h"
#include "slipstream/tools/slip/command.h"
#include "slipstream/tools/slip/sources.h"
#include "slipstream/trainer/files.h"
#include "slipstream/trainer/graph.h"
#include "slipstream/trainer/protocol.h"
#include "slipstream/trainer/tasks/task.h"
#include "slipstream/version.h"

namespace slip::cli {
namespace {

/// Text as roff takes it: a hyphen that can be copied, and no line that is a request.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool begins = out.empty() || out.back() == '\n';
    if (begins && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string paragraph(std::string_view text) { return ".PP\n" + escaped(text) + "\n"; }

std::string as_it_is(std::string_view text) {
  return fmt::format(".PP\n.nf\n{}\n.fi\n", escaped(text));
}

std::string entry(std::string_view term, std::string_view text) {
  return fmt::format(".TP\n.B {}\n{}\n", escaped(term), escaped(text));
}

std::string sentence(std::string_view text) {
  std::string out(text);
  out.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(out.front())));
  return out + ".";
}

std::string title(const std::string& name) {
  std::string upper = name;
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return std::toupper(c); });
  return fmt::format(".TH {} 1 \"\" \"Slipstream {}\" \"Slipstream\"\n", escaped(upper), version);
}

std::string options_section(const Command& command) {
  std::string text = ".SH OPTIONS\n";
  std::string section;
  for (const Option& option : command.options().items()) {
    if (option.section != section) {
      section = option.section;
      text += fmt::format(".SS {}\n", escaped(section));
    }
    const auto short_name = command.short_names().find(option.name);
    std::string term = "--" + option.name;
    if (short_name != command.short_names().end()) term = short_name->second + ", " + term;
    if (const std::string value = value_name(option); !value.empty()) term += " " + value;
    text += entry(term, description(option));
  }
  return text;
}

/// All protocols, of which `slip train --help` shows one at a time.
std::string protocols_section() {
  std::string text =
      ".SH PROTOCOLS\n" + paragraph(
                              "What --protocol may be, and what --set may give each, with what "
                              "holds where it is not given.");
  for (const std::string_view name : protocol_names()) {
    const auto protocol = make_protocol_config(name);
    text += fmt::format(".SS {}\n{}\n", escaped(name), escaped(sentence(protocol->summary())));
    const Options options = protocol->options();
    for (const Option& option : options.items()) {
      text += entry(fmt::format("{}={}", option.name, option.text()),
                    fmt::format("{} ({})", option.doc, option.allowed()));
    }
  }
  return text;
}

constexpr std::string_view exit_codes =
    ".SH EXIT STATUS\n"
    ".TP\n.B 0\nDone. A target that the end of the run missed is still 0.\n"
    ".TP\n.B 1\nThe run failed.\n"
    ".TP\n.B 2\nBad usage.\n";

std::string environment_section() {
  return ".SH ENVIRONMENT\n" +
         paragraph("Every option is also a variable, " + variable_of("option-name") +
                   " for --option-name, and a key of the TOML file that --config names. The "
                   "command line goes over the environment, and that over the file.");
}

std::string see_also(const Commands& commands, const std::string& but) {
  std::string text = ".SH SEE ALSO\n";
  std::vector<std::string> pages;
  if (!but.empty()) pages.push_back("slip");
  for (const auto& command : commands) {
    if (command->name() != but) pages.push_back("slip-" + command->name());
  }
  for (const std::string& page : pages) {
    text += fmt::format(".BR {} (1){}\n", escaped(page), page == pages.back() ? "" : ",");
  }
  return text;
}

std::string page_of(const Command& command, const Commands& commands) {
  const std::string name = "slip-" + command.name();
  std::string text = title(name);
  text += fmt::format(".SH NAME\n{} \\- {}\n", escaped(name), escaped(command.summary()));
  text += fmt::format(".SH SYNOPSIS\n.B slip {}\n[OPTIONS] {}{}\n", escaped(command.name()),
                      command.arguments_are_a_program() ? "\\-\\- " : "",
                      escaped(command.arguments_name()));
  text += options_section(command);
  if (command.name() == "train") {
    text += protocols_section();
  } else if (const std::string more = command.more_help(); !more.empty()) {
    text += ".SH NOTES\n" + as_it_is(more);
  }
  text += exit_codes;
  text += environment_section();
  text += ".SH EXAMPLES\n" + as_it_is(command.example());
  return text + see_also(commands, command.name());
}

std::string page_of_all(const Commands& commands) {
  std::string text = title("slip");
  text += ".SH NAME\nslip \\- trains on workers that need not wait for the slowest of them\n";
  text += ".SH SYNOPSIS\n.B slip\nCOMMAND [OPTIONS]\n.SH COMMANDS\n";
  for (const auto& command : commands) text += entry("slip " + command->name(), command->summary());
  text += ".SH OPTIONS\n" + entry("--help", "of slip, or of a command behind its name") +
          entry("--version", "the release");
  text += exit_codes;
  text += environment_section();
  return text + see_also(commands, "");
}

/// "mnist:" of "mnist:DIR", for the user to go on from.
std::vector<std::string> task_beginnings() {
  std::vector<std::string> beginnings;
  for (const std::string_view form : task_forms()) {
    const std::size_t colon = form.find(':');
    beginnings.emplace_back(form.substr(0, colon == form.npos ? colon : colon + 1));
  }
  return beginnings;
}

/// "max_gap=" and the like, of all protocols.
std::vector<std::string> set_beginnings() {
  std::set<std::string> beginnings;
  for (const std::string_view name : protocol_names()) {
    const auto protocol = make_protocol_config(name);
    for (const std::string& option : protocol->options().names()) beginnings.insert(option + "=");
  }
  return {beginnings.begin(), beginnings.end()};
}

/// What may follow an option, as far as it can be listed: whole values, and beginnings that end in
/// ':' or '='.
std::vector<std::string> values_of(const Option& option) {
  static const std::map<std::string, std::vector<std::string>, std::less<>> beginnings = {
      {"task", task_beginnings()},
      {"set", set_beginnings()},
      {"model", {"softmax", "mlp", "lenet", "gn_lenet", "vgg11", "mf", "svm", "logistic"}},
      {"partition", {"iid", "dirichlet=", "shards=", "user"}},
      {"lr-schedule", {"constant", "step:", "cosine:"}},
      {"target", {"accuracy=", "loss="}}};
  if (const auto found = beginnings.find(option.name); found != beginnings.end()) {
    return found->second;
  }
  if (const auto* choice = std::get_if<Option::Choice>(&option.field)) return choice->names;
  const auto list = [](const auto& names) {
    return std::vector<std::string>(names.begin(), names.end());
  };
  if (option.name == "protocol" || option.name == "protocols") return list(protocol_names());
  if (option.name == "graph") return list(Graph::names());
  return {};
}

std::string completion_of(const Commands& commands) {
  std::string names, options, values, arguments;
  for (const auto& command : commands) {
    names += (names.empty() ? "" : " ") + command->name();
    std::string words = "--help";
    for (const Option& option : command->options().items()) {
      words += " --" + option.name;
      const std::vector<std::string> known = values_of(option);
      if (known.empty()) continue;
      values += fmt::format("    {}:--{}) words='{}' ;;\n", command->name(), option.name,
                            fmt::join(known, " "));
    }
    options += fmt::format("    {}) words='{}' ;;\n", command->name(), words);
    if (const auto first = command->known_arguments(); !first.empty()) {
      arguments += fmt::format("    {}) words='{}' ;;\n", command->name(), fmt::join(first, " "));
    }
  }
  return fmt::format(R"(# bash completion for slip, which made it out of its options.
_slip() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
  local command=${{COMP_WORDS[1]}} words=
  COMPREPLY=()
  # To bash the = of --option=value is a word of its own.
  [[ $before == = ]] && before=${{COMP_WORDS[COMP_CWORD - 2]}}
  [[ $word == = ]] && word=
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W '{} --help --version' -- "$word"))
    return
  fi
  case $command:$before in
{}  esac
  if [[ -z $words && $word == -* ]]; then
    case $command in
{}    esac
  elif [[ -z $words ]] && ((COMP_CWORD == 2)); then
    case $command in
{}    esac
  fi
  if [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ ${{COMPREPLY[0]-}} == *[:=] ]] && compopt -o nospace 2>/dev/null
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _slip slip
)",
                     names, values, options, arguments);
}

int write_pages(const std::string& folder) {
  const Commands commands = make_commands();
  write_file(folder + "/slip.1", page_of_all(commands));
  for (const auto& command : commands) {
    write_file(fmt::format("{}/slip-{}.1", folder, command->name()), page_of(*command, commands));
  }
  write_file(folder + "/slip.bash", completion_of(commands));
  return done;
}

}  // namespace
}  // namespace slip::cli

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "slip_pages: usage: slip_pages FOLDER\n");
    return slip::cli::bad_usage;
  }
  try {
    return slip::cli::write_pages(argv[1]);
  } catch (const std::exception& error) {
    fmt::print(stderr, "slip_pages: {}\n", error.what());
    return slip::cli::failed;
  }
}
