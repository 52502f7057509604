#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "slipstream/runtime/posix_internal.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// Why a bootstrap refuses a name that is there already.
inline std::string published_twice(int rank, std::string_view name, int publisher) {
  return fmt::format("rank {} published '{}', which rank {} had published before", rank,
                     printable(name), publisher);
}

}  // namespace slip

#pragma GCC visibility pop
