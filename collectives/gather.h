#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "slipstream/base/function_ref.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// Hands every worker's bytes to rank 0, which calls `take` with each rank's, in the order of
/// ranks; the others never call theirs. How many they are may differ from rank to rank. One worker
/// sends at a time, in pieces into one small buffer, so rank 0 needs no memory but for what `take`
/// keeps and the one value it is given. Through World::observer, so it is no part of the run that
/// it tells of. A name is used once in a world. All workers call it; throws Error.
void gather(const World& world, std::string_view name, std::span<const std::byte> mine,
            FunctionRef<void(int rank, std::string bytes)> take);

}  // namespace slip
