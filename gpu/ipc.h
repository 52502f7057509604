#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

namespace slip::gpu {

/// How other processes of this host find memory of a GPU.
struct IpcKey {
  std::array<std::byte, 64> memory{};
  std::array<std::byte, 16> gpu{};  // its UUID: each process may number GPUs in its own way
};

/// Of memory that `allocate` has returned; none where that GPU does not share its memory, and `why`
/// says so. Throws Error.
std::optional<IpcKey> ipc_key(int device, const std::byte* memory, std::string* why);

/// Whether `device` and the GPU of that memory reach each other. A GPU that is hidden from this
/// process is taken to. Throws Error.
bool reaches(int device, const IpcKey& key);

/// At least `bytes` of another process's memory, for the work of `device`; closed with the last
/// copy of the handle, once the GPU has done its work. Where the two GPUs do not reach each other
/// it is for copies alone, which the driver makes by way of the host: it is opened on its own GPU,
/// and takes a context there. Throws Error.
std::shared_ptr<std::byte> open_ipc(int device, const IpcKey& key, std::size_t bytes);

/// Whole pages of the host's memory, at the address where work of `device` finds them: it reads and
/// writes them where they are. The last copy of the handle, which does not own the memory, takes
/// them back once the GPU has done its work. Throws Error.
std::shared_ptr<std::byte> lend(int device, std::byte* memory, std::size_t bytes);

/// Lets the work of `device` touch memory of another GPU of this process. Throws Error where the
/// two cannot reach each other.
void reach(int device, int other);

}  // namespace slip::gpu
