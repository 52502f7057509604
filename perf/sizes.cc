#include "slipstream/perf/sizes.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>

#include "slipstream/base/error.h"

namespace slip::perf {
namespace {

constexpr std::size_t largest = std::size_t{64} << 30;

int shift_of(std::string_view suffix) {
  if (suffix.empty()) return 0;
  if (suffix == "K" || suffix == "k") return 10;
  if (suffix == "M" || suffix == "m") return 20;
  if (suffix == "G" || suffix == "g") return 30;
  return -1;
}

}  // namespace

std::size_t parse_size(std::string_view text, std::string_view option) {
  std::uint64_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const int shift = shift_of(text.substr(static_cast<std::size_t>(rest - text.data())));
  if (error != std::errc() || shift < 0 || number == 0 || number > (largest >> shift)) {
    throw Error(
        Code::invalid_argument,
        fmt::format("{} is '{}'; allowed are bytes from 1 to 64G, with K, M or G", option, text));
  }
  return number << shift;
}

std::vector<std::size_t> sizes_between(std::size_t begin, std::size_t end, int factor) {
  if (begin > end || factor < 2) {
    throw Error(Code::invalid_argument,
                fmt::format("no size from {} to {} by a factor of {}; allowed are a last size (-e) "
                            "not below the first (-b) and a factor (-f) from 2",
                            begin, end, factor));
  }
  std::vector<std::size_t> sizes;
  // Bounded by `largest`, so that the product cannot overflow.
  for (std::size_t size = begin; size <= end; size *= static_cast<std::size_t>(factor)) {
    sizes.push_back(size);
  }
  return sizes;
}

}  // namespace slip::perf
