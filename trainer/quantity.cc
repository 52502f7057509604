#include "slipstream/trainer/quantity.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>
#include <span>

#include "slipstream/base/error.h"

namespace slip {
namespace {

[[noreturn]] void refuse(std::string_view text, std::string_view what, std::string_view allowed) {
  throw Error(Code::invalid_argument, fmt::format("{}: '{}' is not {}", what, text, allowed));
}

/// The number that `text` starts with; `text` becomes the rest.
std::optional<double> leading_number(std::string_view& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return std::nullopt;
  text.remove_prefix(end - text.data());
  return value;
}

struct Unit {
  std::string_view name;
  double factor;
};

/// A number and one of `units`.
std::optional<double> with_unit(std::string_view text, std::span<const Unit> units) {
  const std::optional<double> value = leading_number(text);
  if (!value) return std::nullopt;
  for (const Unit& unit : units) {
    if (text == unit.name) return *value * unit.factor;
  }
  return std::nullopt;
}

constexpr Unit times[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}};
constexpr Unit rates[] = {{"kbit", 1e3 / 8}, {"mbit", 1e6 / 8}, {"gbit", 1e9 / 8}};

}  // namespace

double parse_number(std::string_view text, std::string_view what) {
  std::string_view rest = text;
  const std::optional<double> value = leading_number(rest);
  if (!value || !rest.empty()) refuse(text, what, "a number");
  return *value;
}

double parse_probability(std::string_view text, std::string_view what, int workers) {
  const std::string_view allowed =
      workers > 0 ? "a probability; allowed are 0 to 1, such as 0.125, 1/8, 1/n"
                  : "a probability; allowed are 0 to 1, such as 0.125 or 1/8";
  if (workers > 0 && text == "1/n") return 1.0 / workers;
  std::string_view rest = text;
  std::optional<double> value = leading_number(rest);
  if (value && rest.starts_with('/')) {
    rest.remove_prefix(1);
    const std::optional<double> divisor = leading_number(rest);
    value = divisor ? std::optional(*value / *divisor) : std::nullopt;
  }
  // Written so that a division by zero is refused too.
  if (!value || !rest.empty() || !(*value >= 0 && *value <= 1)) refuse(text, what, allowed);
  return *value;
}

Duration parse_duration(std::string_view text, std::string_view what) {
  const std::optional<double> seconds = with_unit(text, times);
  if (!seconds || *seconds < 0 || *seconds > 1e9) {
    refuse(text, what, "a duration; allowed is a number with ns, us, ms or s, such as 10ms");
  }
  return from_seconds(*seconds);
}

double parse_rate(std::string_view text, std::string_view what) {
  const std::optional<double> rate = with_unit(text, rates);
  if (!rate || *rate <= 0) {
    refuse(text, what, "a rate; allowed is a number with kbit, mbit or gbit, such as 60mbit");
  }
  return *rate;
}

Fields parse_fields(std::string_view text) {
  Fields fields;
  while (true) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    const std::size_t equals = part.find('=');
    fields.emplace_back(part.substr(0, equals),
                        equals == part.npos ? std::string_view() : part.substr(equals + 1));
    if (comma == text.size()) return fields;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace slip
