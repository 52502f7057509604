#include "slipstream/tools/slip/sources.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "slipstream/trainer/files.h"

namespace slip::cli {
namespace {

constexpr std::string_view prefix = "SLIP_";

// Set by launchers and tests, and options of nobody.
constexpr std::array<std::string_view, 7> reserved = {
    "SLIP_SIZE",      "SLIP_LOCAL_RANK", "SLIP_LOCAL_SIZE", "SLIP_RENDEZVOUS_SERVER",
    "SLIP_TEST_DATA", "SLIP_TEST_SEED",  "SLIP_TEST_SEEDS"};

// Name and value of an entry of environ, if its name starts with SLIP_ and the value is not empty.
struct Variable {
  std::string_view name;
  std::string_view value;
};

std::vector<Variable> variables(const char* const* environment) {
  std::vector<Variable> found;
  for (; *environment; ++environment) {
    const std::string_view entry = *environment;
    const std::size_t equals = entry.find('=');
    if (!entry.starts_with(prefix) || equals == entry.npos || equals + 1 == entry.size()) continue;
    found.push_back({entry.substr(0, equals), entry.substr(equals + 1)});
  }
  return found;
}

class TomlReader {
 public:
  TomlReader(const std::string& path, const Options& options) : path_(path), options_(options) {}

  std::vector<Setting> read(const toml::table& file) {
    for (const auto& [key, node] : file) {
      const std::string name(key.str());
      if (const toml::table* table = node.as_table()) {
        read_table(name, *table);
      } else {
        check_known(name, node);
        add(node, name, name, text_of(node, name));
      }
    }
    // The parser sorts keys by name, but later lines go over earlier ones.
    std::stable_sort(found_.begin(), found_.end(),
                     [](const Found& a, const Found& b) { return a.position < b.position; });
    std::vector<Setting> settings;
    for (Found& found : found_) settings.push_back(std::move(found.setting));
    return settings;
  }

 private:
  struct Found {
    toml::source_position position;
    Setting setting;
  };

  void add(const toml::node& node, const std::string& name, const std::string& key,
           const std::string& text) {
    const toml::source_position at = node.source().begin;
    found_.push_back({at, {name, text, fmt::format("{}:{}: {}", path_, at.line, key)}});
  }

  [[noreturn]] void fail(const toml::node& node, const std::string& reason) const {
    throw Error(Code::invalid_argument,
                fmt::format("{}:{}: {}", path_, node.source().begin.line, reason));
  }

  void check_known(const std::string& name, const toml::node& node) const {
    if (name == "config") fail(node, "a file names no other file; config is for the command line");
    if (!options_.find(name)) fail(node, unknown_name("option", name, options_.names()));
  }

  // [set], and [hop] for what would be hop.KEY in it.
  void read_table(const std::string& name, const toml::table& table) {
    if (options_.find(name) && name != "set") fail(table, name + " is a value and no table");
    if (!options_.find("set")) fail(table, unknown_name("option", name, options_.names()));
    read_pairs(name == "set" ? "" : name + ".", table);
  }

  void read_pairs(const std::string& scope, const toml::table& table) {
    for (const auto& [key, node] : table) {
      const std::string name = scope + std::string(key.str());
      if (const toml::table* inner = node.as_table()) {
        read_pairs(name + ".", *inner);
      } else {
        add(node, "set", name, name + "=" + text_of(node, name));
      }
    }
  }

  std::string text_of(const toml::node& node, const std::string& name) const {
    if (const auto* array = node.as_array()) {
      std::string text;
      for (const toml::node& item : *array) {
        const std::string word = item.is_array() ? std::string() : text_of(item, name);
        if (word.empty() || word.find(' ') != word.npos) {
          fail(item, name + ": an item of a list is a word or a number, without spaces");
        }
        text += (text.empty() ? "" : " ") + word;
      }
      return text;
    }
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* integer = node.as_integer()) return fmt::format("{}", integer->get());
    if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
    if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
    fail(node,
         name + " is a date, time or table; allowed are strings, numbers, true, false, arrays");
  }

  const std::string& path_;
  const Options& options_;
  std::vector<Found> found_;
};

}  // namespace

std::string variable_of(std::string_view option) {
  std::string variable(prefix);
  for (const char c : option) {
    variable += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return variable;
}

void set_all(const std::vector<Setting>& settings, Options& options) {
  for (const Setting& setting : settings) {
    const Option* option = options.find(setting.name);
    const bool collects = option && setting.name == "set";
    const std::string text = collects ? option->text() + " " + setting.text : setting.text;
    options.set(setting.name, text, setting.shown_as);
  }
}

std::vector<Setting> read_toml(const std::string& path, const Options& options) {
  try {
    return TomlReader(path, options).read(toml::parse(read_file(path), path));
  } catch (const toml::parse_error& error) {
    throw Error(
        Code::invalid_argument,
        fmt::format("{}:{}: not TOML: {}", path, error.source().begin.line, error.description()));
  } catch (const Error& error) {
    throw Error(Code::invalid_argument, error.what());  // a file that is not there is bad usage
  }
}

std::vector<Setting> read_environment(const char* const* environment, const Options& options) {
  std::vector<Setting> settings;
  for (const Variable& variable : variables(environment)) {
    for (const Option& option : options.items()) {
      if (variable.name != variable_of(option.name)) continue;
      settings.push_back({option.name, std::string(variable.value), std::string(variable.name)});
    }
  }
  return settings;
}

std::vector<std::string> unknown_variables(const char* const* environment,
                                           const std::vector<std::string>& known) {
  std::vector<std::string> names(reserved.begin(), reserved.end());
  for (const std::string& option : known) names.push_back(variable_of(option));
  std::vector<std::string> lines;
  for (const Variable& variable : variables(environment)) {
    if (std::find(names.begin(), names.end(), variable.name) != names.end()) continue;
    lines.push_back(unknown_name("environment variable", variable.name, names) + " (ignored)");
  }
  return lines;
}

}  // namespace slip::cli
