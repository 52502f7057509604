#pragma once

#include <string>

#include "slipstream/perf/bench.h"

namespace slip::perf {

/// All ranks' measurements as one, on rank 0: sample by sample and in the interval that of the
/// slowest rank; the wrong elements of all. Other ranks get their own back. `name` is for regions;
/// no rank has more than `most_samples`. Throws Error.
Measurement gather(const World& world, const std::string& name, Measurement own,
                   std::size_t most_samples);

}  // namespace slip::perf
