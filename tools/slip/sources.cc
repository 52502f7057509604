#include "slipstream/tools/slip/sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "slipstream/tools/slip/toml_file.h"

namespace slip::cli {
namespace {

constexpr std::string_view prefix = "SLIP_";

// Set by launchers and tests, and options of nobody.
constexpr std::array<std::string_view, 21> reserved = {
    "SLIP_SIZE",         "SLIP_LOCAL_RANK",    "SLIP_LOCAL_SIZE",   "SLIP_RENDEZVOUS_SERVER",
    "SLIP_SECRET",       "SLIP_INTERFACE",     "SLIP_PORTS",        "SLIP_TEST_DATA",
    "SLIP_TEST_SEED",    "SLIP_TEST_SEEDS",    "SLIP_VERBS_DEVICE", "SLIP_VERBS_PORT",
    "SLIP_VERBS_GID",    "SLIP_VERBS_PKEY",    "SLIP_VERBS_MTU",    "SLIP_VERBS_WORDS",
    "SLIP_JOIN_TIMEOUT", "SLIP_VERBS_LIBRARY", "SLIP_CUDA_LIBRARY", "SLIP_NCCL_LIBRARY",
    "SLIP_CHECKSUMS"};

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
  const TomlFile file(path);
  return file.settings(file.root(), options);
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
