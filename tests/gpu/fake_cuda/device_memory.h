#pragma once

#include <cuda.h>

#include <cstddef>
#include <optional>

/// The memory of the fake GPUs. Each piece is mapped twice: the address that programs get can be
/// neither read nor written, so that touching it from the host ends them; what runs on the fake GPU
/// gets the other one from `reach`.
namespace fake_cuda {

struct Piece {
  CUdeviceptr address = 0;
  std::byte* reachable = nullptr;
  std::size_t bytes = 0;  // whole pages
  std::size_t asked = 0;  // as it was allocated
  int device = 0;
  int fd = -1;
  int opened = 0;  // how often, where it is another process's
};

/// Poisoned memory; empty where there is not so much.
std::optional<CUdeviceptr> allocate(int device, std::size_t bytes);
/// False where it is none that was allocated here.
bool release(CUdeviceptr address);
std::size_t free_memory(int device);

/// The piece around an address; empty: it is the host's.
std::optional<Piece> piece_of(CUdeviceptr address);

/// Where the fake GPU finds what stands at this address; the host's memory stays where it is.
std::byte* reach(CUdeviceptr address);
template <class T>
T* reach(T* address) {
  return reinterpret_cast<T*>(reach(reinterpret_cast<CUdeviceptr>(address)));
}

/// The same for a kernel of `device`; the GPUs are lost where it cannot.
std::byte* reach_by_kernel(int device, CUdeviceptr address);

/// Handles by which other processes of this host open a piece, for work of `device`.
CUresult export_piece(CUdeviceptr address, CUipcMemHandle* handle);
CUresult import_piece(int device, const CUipcMemHandle& handle, CUdeviceptr* address);
CUresult close_piece(CUdeviceptr address);

/// Memory of the host that is pinned.
bool pin(void* address, std::size_t bytes);
/// False where it is not.
bool unpin(void* address);
bool pinned(const void* address);
/// Of what begins there; 0: nothing.
std::size_t pinned_bytes(const void* address);

}  // namespace fake_cuda
