#pragma once

#include <cstddef>
#include <memory>

#pragma GCC visibility push(hidden)

namespace slip {

/// Zeroed memory for vectors, of the host or of a GPU. Throws Error.
std::shared_ptr<std::byte> allocate_vector(int device, std::size_t bytes);

}  // namespace slip

#pragma GCC visibility pop
