#include "slipstream/runtime/bootstrap.h"

#include <fmt/format.h>

namespace slip {

std::vector<std::string> Bootstrap::all_gather(std::string_view name, std::string_view value,
                                               Duration timeout) {
  put(fmt::format("{}/{}", name, rank()), value);
  std::vector<std::string> all;
  for (int peer = 0; peer < size(); ++peer) {
    all.push_back(get(fmt::format("{}/{}", name, peer), timeout));
  }
  return all;
}

}  // namespace slip
