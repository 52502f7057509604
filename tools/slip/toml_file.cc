#include "slipstream/tools/slip/toml_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "slipstream/trainer/files.h"

namespace slip::cli {
namespace {

toml::table parse(const std::string& path) {
  try {
    return toml::parse(read_file(path), path);
  } catch (const toml::parse_error& error) {
    throw Error(
        Code::invalid_argument,
        fmt::format("{}:{}: not TOML: {}", path, error.source().begin.line, error.description()));
  } catch (const Error& error) {
    throw Error(Code::invalid_argument, error.what());  // a file that is not there is bad usage
  }
}

/// The settings of one table.
class SettingsReader {
 public:
  SettingsReader(const TomlFile& file, const Options& options,
                 const std::vector<std::string>& not_here)
      : file_(file), options_(options), not_here_(not_here) {}

  std::vector<Setting> read(const toml::table& table) {
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      if (std::find(not_here_.begin(), not_here_.end(), name) != not_here_.end()) continue;
      if (const toml::table* inner = node.as_table()) {
        read_table(name, *inner);
      } else {
        check_known(name, node);
        add(node, name, name, file_.text(node, name));
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
    found_.push_back(
        {node.source().begin, {name, text, fmt::format("{}: {}", file_.place(node), key)}});
  }

  void check_known(const std::string& name, const toml::node& node) const {
    if (name == "config") {
      file_.fail(node, "a file names no other file; config is for the command line");
    }
    if (options_.find(name)) return;
    std::vector<std::string> allowed = options_.names();
    allowed.insert(allowed.end(), not_here_.begin(), not_here_.end());
    file_.fail(node, unknown_name("option", name, allowed));
  }

  // [set], and [hop] for what would be hop.KEY in it.
  void read_table(const std::string& name, const toml::table& table) {
    if (options_.find(name) && name != "set") file_.fail(table, name + " is a value and no table");
    if (!options_.find("set")) file_.fail(table, unknown_name("option", name, options_.names()));
    read_pairs(name == "set" ? "" : name + ".", table);
  }

  void read_pairs(const std::string& scope, const toml::table& table) {
    for (const auto& [key, node] : table) {
      const std::string name = scope + std::string(key.str());
      if (const toml::table* inner = node.as_table()) {
        read_pairs(name + ".", *inner);
      } else {
        add(node, "set", name, name + "=" + file_.text(node, name));
      }
    }
  }

  const TomlFile& file_;
  const Options& options_;
  const std::vector<std::string>& not_here_;
  std::vector<Found> found_;
};

}  // namespace

TomlFile::TomlFile(std::string path) : path_(std::move(path)), root_(parse(path_)) {}

std::vector<Setting> TomlFile::settings(const toml::table& table, const Options& options,
                                        const std::vector<std::string>& not_here) const {
  return SettingsReader(*this, options, not_here).read(table);
}

std::string TomlFile::text(const toml::node& value, std::string_view name) const {
  if (const auto* array = value.as_array()) {
    std::string list;
    for (const toml::node& item : *array) {
      const std::string word = item.is_array() ? std::string() : text(item, name);
      if (word.empty() || word.find(' ') != word.npos) {
        fail(item,
             fmt::format("{}: an item of a list is a word or a number, without spaces", name));
      }
      list += (list.empty() ? "" : " ") + word;
    }
    return list;
  }
  if (const auto* string = value.as_string()) return string->get();
  if (const auto* integer = value.as_integer()) return fmt::format("{}", integer->get());
  if (const auto* number = value.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* flag = value.as_boolean()) return flag->get() ? "true" : "false";
  fail(value,
       fmt::format("{} is a date, time or table; allowed are strings, numbers, true, false, arrays",
                   name));
}

std::string TomlFile::place(const toml::node& node) const {
  return fmt::format("{}:{}", path_, node.source().begin.line);
}

void TomlFile::fail(const toml::node& node, std::string_view reason) const {
  throw Error(Code::invalid_argument, fmt::format("{}: {}", place(node), reason));
}

}  // namespace slip::cli
