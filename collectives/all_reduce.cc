#include "slipstream/collectives/all_reduce.h"

#include <numeric>

namespace slip {

AllReduce::AllReduce(const World& world, std::string_view name, std::size_t count, Dtype dtype,
                     PartialAllReduceOptions options)
    : partial_(world, name, count, dtype, options) {
  everyone_.sequence = 1;
  everyone_.members.resize(static_cast<std::size_t>(world.size()));
  std::iota(everyone_.members.begin(), everyone_.members.end(), 0);
  partial_.announce(everyone_).throw_if_failed();
}

}  // namespace slip
