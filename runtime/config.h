#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "slipstream/base/error.h"

namespace slip {

/// What a number may be; `high` always included, `low` unless `low_excluded`.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_excluded = false;

  static constexpr Range at_least(double low) { return {.low = low}; }
  static constexpr Range above(double low) { return {.low = low, .low_excluded = true}; }
  static constexpr Range between(double low, double high) { return {.low = low, .high = high}; }
};

/// How an option's text reads: `flag` true or false, `list` items separated by spaces. The text of
/// a flag, an integer or a number is also its JSON, except `none` (an optional that holds nothing).
enum class OptionKind { flag, integer, number, text, list };

/// One named option, bound to a field that it does not own.
struct Option {
  /// An enumeration or a string out of a fixed set of names.
  struct Choice {
    std::vector<std::string> names;
    std::function<std::string()> get;
    std::function<void(std::size_t)> set;  // index into `names`
  };
  using Field = std::variant<bool*, int*, std::int64_t*, std::uint64_t*, double*, std::string*,
                             std::optional<int>*, std::optional<std::int64_t>*,
                             std::optional<double>*, std::vector<std::string>*, Choice>;

  std::string name;
  std::string doc;  // one line
  std::string section;
  Field field;
  Range range;

  OptionKind kind() const;
  /// The field's value now, in the form that `Options::set` reads.
  std::string text() const;
  /// What may be set, to follow "allowed are": "integers from 1", "parallel, serial".
  std::string allowed() const;
};

/// A table of options, each with one name that C++ fields, TOML, the environment and docs share.
/// It points into the struct that it describes, which must stay where it is. Not thread-safe.
///
///     Options describe(Hop& hop) {
///       return Options()
///           .add("max_gap", hop.max_gap, "iterations a sender may be ahead", Range::at_least(1))
///           .add("order", hop.order, {"parallel", "serial"}, "when the gradient is applied");
///     }
class Options {
 public:
  /// `Field` is one of the pointed-to types of Option::Field.
  template <class Field>
  Options& add(std::string name, Field& field, std::string doc, Range range = {}) {
    return insert({std::move(name), std::move(doc), section_, &field, range});
  }

  /// For an enumeration: the names of its values, which count from 0 in the order given. For a
  /// string: what it may be.
  template <class Field>
  Options& add(std::string name, Field& field, std::vector<std::string> names, std::string doc) {
    Option::Choice choice;
    if constexpr (std::is_enum_v<Field>) {
      choice.get = [&field, names] { return names.at(static_cast<std::size_t>(field)); };
      choice.set = [&field](std::size_t i) { field = static_cast<Field>(i); };
    } else {
      choice.get = [&field] { return field; };
      choice.set = [&field, names](std::size_t i) { field = names[i]; };
    }
    choice.names = std::move(names);
    return insert({std::move(name), std::move(doc), section_, std::move(choice), {}});
  }

  /// The heading under which help shows the options that are added from here on.
  Options& section(std::string heading);

  /// Adds all of `other`, which points to where it pointed.
  Options& append(const Options& other);
  /// Takes options out of the table; names that are not in it do not matter.
  Options& remove(const std::vector<std::string>& names);

  /// Sets the field from text: `true`, `12`, `0.5`, `parallel`, `none` for an empty optional.
  /// Throws Error(invalid_argument), one line that says what is allowed and calls the option
  /// `shown_as` (its name, if empty: `--lr`, `SLIP_LR`, `run.toml:3: lr`). The field then keeps its
  /// value.
  void set(std::string_view name, std::string_view text, std::string_view shown_as = {});

  /// In the order of `add`.
  const std::vector<Option>& items() const { return items_; }
  const Option* find(std::string_view name) const;
  std::vector<std::string> names() const;

  /// Names and resolved values in the order of `add`: for reports, and for workers to compare.
  std::vector<std::pair<std::string, std::string>> entries() const;

  /// One line for each option: name, value, what it does, what is allowed.
  std::string help() const;

 private:
  Options& insert(Option option);

  std::vector<Option> items_;
  std::string section_;
};

/// `unknown protocol 'hopp'; did you mean 'hop'? allowed are hop, prague`: the question where a
/// name is near, the list unless it is long and a name is near.
std::string unknown_name(std::string_view what, std::string_view name,
                         const std::vector<std::string>& allowed);

}  // namespace slip
