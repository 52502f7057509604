#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "slipstream/base/error.h"
#include "slipstream/runtime/posix_internal.h"
#include "slipstream/trainer/tasks/text_lines_internal.h"

namespace slip {
namespace {

constexpr std::size_t block = std::size_t{1} << 20;
constexpr std::size_t longest_line = std::size_t{1} << 26;
constexpr std::string_view blanks = " \t\r";

}  // namespace

bool Lines::next(std::string_view& line) {
  ++number_;
  for (std::size_t searched = 0;;) {
    const std::string_view rest = std::string_view(text_).substr(at_);
    if (const std::size_t end = rest.find('\n', searched); end != rest.npos) {
      line = rest.substr(0, end);
      at_ += end + 1;
      return true;
    }
    if (ended_) {
      line = rest;
      at_ = text_.size();
      return !line.empty();
    }
    if (rest.size() > longest_line) {
      refuse(fmt::format("it is longer than {} bytes, the most that is read", longest_line));
    }
    searched = rest.size();
    text_.erase(0, at_);
    at_ = 0;
    text_.resize(searched + block);
    auto* const end = reinterpret_cast<std::uint8_t*>(text_.data()) + searched;
    const std::size_t got = file_.read({end, block});
    text_.resize(searched + got);
    ended_ = got < block;
  }
}

void Lines::refuse(std::string_view why) const {
  throw Error(Code::bad_data, fmt::format("{}:{}: {}", path_.string(), number_, why));
}

std::string quoted(std::string_view word) {
  constexpr std::size_t shown = 40;
  return fmt::format("'{}{}'", printable(word.substr(0, shown)), word.size() > shown ? "..." : "");
}

std::string_view take_word(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(blanks), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(blanks));
  line.remove_prefix(word.size());
  return word;
}

std::optional<double> number(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return {};
  return value;
}

}  // namespace slip
