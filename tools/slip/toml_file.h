#pragma once

#include <toml++/toml.h>

#include <string>
#include <string_view>
#include <vector>

#include "slipstream/tools/slip/sources.h"

namespace slip::cli {

/// A TOML file as a source of settings. What is wrong with it is one line that begins with file and
/// line, thrown as Error(invalid_argument).
class TomlFile {
 public:
  explicit TomlFile(std::string path);

  const std::string& path() const { return path_; }
  const toml::table& root() const { return root_; }

  /// The keys of `table` as settings of `options`, in the order of the file. `not_here`: keys that
  /// mean something else in this table; they are passed over.
  std::vector<Setting> settings(const toml::table& table, const Options& options,
                                const std::vector<std::string>& not_here = {}) const;

  /// A value as Options::set reads it: a string, a number, true or false, an array as a list.
  /// `name` is what messages call it.
  std::string text(const toml::node& value, std::string_view name) const;

  /// "run.toml:3"
  std::string place(const toml::node& node) const;
  [[noreturn]] void fail(const toml::node& node, std::string_view reason) const;

 private:
  std::string path_;
  toml::table root_;
};

}  // namespace slip::cli
