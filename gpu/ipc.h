#pragma once

#include <array>
#include <cstddef>
#include <memory>

namespace slip::gpu {

/// How other processes of this host find memory of a GPU.
using IpcKey = std::array<std::byte, 64>;

/// Of memory that `allocate` has returned. Throws Error.
IpcKey ipc_key(int device, const std::byte* memory);

/// At least `bytes` of another process's memory, for the work of `device`; closed with the last
/// copy of the handle, once the GPU has done its work. Throws Error.
std::shared_ptr<std::byte> open_ipc(int device, const IpcKey& key, std::size_t bytes);

/// Lets the work of `device` touch memory of another GPU of this process. Throws Error where the
/// two cannot reach each other.
void reach(int device, int other);

}  // namespace slip::gpu
