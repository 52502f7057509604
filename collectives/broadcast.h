#pragma once

#include <string_view>

#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// Copies rank 0's vector to every worker, down a binary tree of puts. Set-up: allocates as much
/// memory at every worker for its time. Collective, once per name; throws Error.
void broadcast(const World& world, std::string_view name, VectorView vector);

}  // namespace slip
