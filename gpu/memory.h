#pragma once

#include <cstddef>
#include <memory>

#include "slipstream/base/error.h"
#include "slipstream/gpu/stream.h"

namespace slip::gpu {

/// Zeroed memory of a GPU, aligned to 256 bytes, freed with the last copy of the handle: once the
/// GPU has done its work. Throws Error(out_of_memory, ...).
std::shared_ptr<std::byte> allocate(int device, std::size_t bytes);

/// Zeroed memory of the host that stays in its place, which GPUs copy from and to fastest. Throws
/// Error.
std::shared_ptr<std::byte> allocate_pinned(int device, std::size_t bytes);

/// Enqueues a copy; each end is memory of a GPU or of the host. What is not pinned may be read and
/// written before this returns.
Status copy(void* to, const void* from, std::size_t bytes, const Stream& stream);

}  // namespace slip::gpu
