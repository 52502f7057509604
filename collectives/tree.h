#pragma once

#include <string_view>

#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"

/// Collectives for the beginning and the end of a run: down and up a binary tree of puts, with a
/// few connections per worker however many there are. They allocate for their time; a name is used
/// once in a world. All workers call them; they throw Error.
namespace slip {

/// Copies rank 0's vector to every worker.
void broadcast(const World& world, std::string_view name, VectorView vector);

/// Replaces every worker's vector by the mean of all, the same bits everywhere.
void tree_mean(const World& world, std::string_view name, VectorView vector);
/// Bytes of registered memory that it takes at each worker, for a vector of so many.
std::size_t tree_mean_memory(int workers, std::size_t bytes);

}  // namespace slip
