#include "slipstream/runtime/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <type_traits>

namespace slip {
namespace {

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

template <class... Cases>
struct overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
overloaded(Cases...) -> overloaded<Cases...>;

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> items;
  for (std::size_t at = 0; (at = text.find_first_not_of(' ', at)) != text.npos;) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    items.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return items;
}

bool inside(const Range& range, double value) {
  const bool low = range.low_excluded ? value > range.low : value >= range.low;
  return low && value <= range.high;
}

// The whole text as a T, or nothing.
template <class T>
std::optional<T> parse(std::string_view text, const Range& range) {
  if constexpr (std::is_same_v<T, bool>) {
    if (text == "true" || text == "on" || text == "1") return true;
    if (text == "false" || text == "off" || text == "0") return false;
    return {};
  } else if constexpr (std::is_same_v<T, std::string>) {
    return std::string(text);
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    return split(text);
  } else {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    // NaN is inside no range; infinity is nobody's number.
    if (!whole || !inside(range, static_cast<double>(value))) return {};
    if (!std::isfinite(static_cast<double>(value))) return {};
    return value;
  }
}

template <class T>
bool assign(T& field, std::string_view text, const Range& range) {
  if constexpr (is_optional<T>::value) {
    if (text == "none") {
      field.reset();
      return true;
    }
    const auto value = parse<typename T::value_type>(text, range);
    if (value) field = value;
    return value.has_value();
  } else {
    auto value = parse<T>(text, range);
    if (value) field = std::move(*value);
    return value.has_value();
  }
}

template <class T>
std::string to_text(const T& field) {
  if constexpr (is_optional<T>::value) {
    return field ? to_text(*field) : "none";
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    return fmt::format("{}", fmt::join(field, " "));
  } else {
    return fmt::format("{}", field);
  }
}

std::string describe(const char* numbers, const Range& range) {
  const bool low = std::isfinite(range.low), high = std::isfinite(range.high);
  std::string text = numbers;
  if (low) text += fmt::format(" {} {}", range.low_excluded ? "above" : "from", range.low);
  if (high) text += fmt::format("{} to {}", low && range.low_excluded ? " up" : "", range.high);
  return text;
}

// Optimal string alignment: insertions, deletions, substitutions, swaps of neighbours.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

}  // namespace

OptionKind Option::kind() const {
  return std::visit(overloaded{
                        [](bool*) { return OptionKind::flag; },
                        [](double*) { return OptionKind::number; },
                        [](std::optional<double>*) { return OptionKind::number; },
                        [](std::string*) { return OptionKind::text; },
                        [](const Choice&) { return OptionKind::text; },
                        [](std::vector<std::string>*) { return OptionKind::list; },
                        [](auto*) { return OptionKind::integer; },
                    },
                    field);
}

std::string Option::text() const {
  return std::visit(overloaded{
                        [](const Choice& choice) { return choice.get(); },
                        [](auto* pointer) { return to_text(*pointer); },
                    },
                    field);
}

std::string Option::allowed() const {
  const std::string none = std::visit(
      overloaded{
          [](const Choice&) { return ""; },
          [](auto* pointer) {
            return is_optional<std::remove_pointer_t<decltype(pointer)>>::value ? ", none" : "";
          },
      },
      field);
  switch (kind()) {
    case OptionKind::flag:
      return "true, false, on, off";
    case OptionKind::integer:
      return describe("integers", range) + none;
    case OptionKind::number:
      return describe("numbers", range) + none;
    case OptionKind::list:
      return "items separated by spaces";
    case OptionKind::text:
      break;
  }
  const auto* choice = std::get_if<Choice>(&field);
  return choice ? fmt::format("{}", fmt::join(choice->names, ", ")) : "any text";
}

Options& Options::insert(Option option) {
  if (find(option.name)) {
    throw Error(Code::invalid_argument, fmt::format("option {} is added twice", option.name));
  }
  items_.push_back(std::move(option));
  return *this;
}

Options& Options::section(std::string heading) {
  section_ = std::move(heading);
  return *this;
}

Options& Options::append(const Options& other) {
  for (const Option& item : other.items_) insert(item);
  return *this;
}

Options& Options::remove(const std::vector<std::string>& names) {
  std::erase_if(items_, [&](const Option& item) {
    return std::find(names.begin(), names.end(), item.name) != names.end();
  });
  return *this;
}

void Options::set(std::string_view name, std::string_view text, std::string_view shown_as) {
  const auto option = std::find_if(items_.begin(), items_.end(),
                                   [&](const Option& item) { return item.name == name; });
  if (option == items_.end()) {
    throw Error(Code::invalid_argument,
                unknown_name("option", shown_as.empty() ? name : shown_as, names()));
  }
  const bool done =
      std::visit(overloaded{
                     [&](const Option::Choice& choice) {
                       const auto at = std::find(choice.names.begin(), choice.names.end(), text);
                       if (at == choice.names.end()) return false;
                       choice.set(static_cast<std::size_t>(at - choice.names.begin()));
                       return true;
                     },
                     [&](auto* pointer) { return assign(*pointer, text, option->range); },
                 },
                 option->field);
  if (!done) {
    throw Error(Code::invalid_argument,
                fmt::format("{} is '{}'; allowed are {}", shown_as.empty() ? name : shown_as, text,
                            option->allowed()));
  }
}

const Option* Options::find(std::string_view name) const {
  const auto at = std::find_if(items_.begin(), items_.end(),
                               [&](const Option& item) { return item.name == name; });
  return at == items_.end() ? nullptr : &*at;
}

std::vector<std::string> Options::names() const {
  std::vector<std::string> names;
  for (const Option& item : items_) names.push_back(item.name);
  return names;
}

std::vector<std::pair<std::string, std::string>> Options::entries() const {
  std::vector<std::pair<std::string, std::string>> entries;
  for (const Option& item : items_) entries.emplace_back(item.name, item.text());
  return entries;
}

std::string Options::help() const {
  std::string help, section;
  for (const Option& item : items_) {
    if (item.section != section) help += fmt::format("{}:\n", section = item.section);
    const bool constrained =
        item.kind() != OptionKind::text || std::holds_alternative<Option::Choice>(item.field);
    help += fmt::format("  {:<26} {}", item.name + "=" + item.text(), item.doc);
    help += constrained ? fmt::format(" ({})\n", item.allowed()) : "\n";
  }
  return help;
}

std::string unknown_name(std::string_view what, std::string_view name,
                         const std::vector<std::string>& allowed) {
  const auto distance = [&](const std::string& other) { return edit_distance(name, other); };
  const auto nearest =
      std::min_element(allowed.begin(), allowed.end(),
                       [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
  const bool near =
      nearest != allowed.end() && distance(*nearest) <= std::min(name.size(), nearest->size()) / 3;
  std::string line = fmt::format("unknown {} '{}';", what, name);
  if (near) line += fmt::format(" did you mean '{}'?", *nearest);
  constexpr std::size_t long_list = 16;
  if (near && allowed.size() > long_list) return line;
  if (allowed.empty()) return line + " there are none";
  return line + fmt::format(" allowed are {}", fmt::join(allowed, ", "));
}

}  // namespace slip
