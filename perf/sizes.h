#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace slip::perf {

/// "8", "64K", "2M", "1G": bytes, the suffixes binary. From 1 byte to 64 GiB. `option` names the
/// option in the error. Throws Error(invalid_argument).
std::size_t parse_size(std::string_view text, std::string_view option);

/// begin, begin * factor, ... up to `end`. Throws Error(invalid_argument) if that is nothing.
std::vector<std::size_t> sizes_between(std::size_t begin, std::size_t end, int factor);

}  // namespace slip::perf
