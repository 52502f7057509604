#include "device_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "settings.h"

namespace fake_cuda {
namespace {

constexpr int poison = 0xa5;
constexpr std::size_t page = 4096;

struct Memory {
  std::mutex mutex;
  std::map<CUdeviceptr, Piece> pieces;
  std::map<CUdeviceptr, std::size_t> pinned;
  std::map<int, std::size_t> used;
};

Memory& memory() {
  static Memory& known = *new Memory;  // threads of streams may outlive what is static
  return known;
}

/// What a handle holds; the rest is zero.
struct Handle {
  pid_t pid;
  int fd;
  int device;  // as the machine numbers them
  std::size_t bytes;
};
static_assert(sizeof(Handle) <= sizeof(CUipcMemHandle));

/// The element at or before an address, if the address is within it.
template <class Map, class Bytes>
auto around(Map& map, CUdeviceptr address, Bytes bytes) {
  auto found = map.upper_bound(address);
  if (found == map.begin()) return map.end();
  --found;
  return address - found->first < bytes(found->second) ? found : map.end();
}

auto find(Memory& m, CUdeviceptr address) {
  return around(m.pieces, address, [](const Piece& piece) { return piece.bytes; });
}

/// Maps `fd` twice.
std::optional<Piece> map_piece(int fd, std::size_t bytes, int device) {
  Piece piece{
      .bytes = (bytes + page - 1) / page * page, .asked = bytes, .device = device, .fd = fd};
  void* reachable = mmap(nullptr, piece.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  void* address = mmap(nullptr, piece.bytes, PROT_NONE, MAP_SHARED, fd, 0);
  if (reachable == MAP_FAILED || address == MAP_FAILED) return {};
  piece.reachable = static_cast<std::byte*>(reachable);
  piece.address = reinterpret_cast<CUdeviceptr>(address);
  return piece;
}

void unmap(const Piece& piece) {
  munmap(piece.reachable, piece.bytes);
  munmap(reinterpret_cast<void*>(piece.address), piece.bytes);
  close(piece.fd);
}

}  // namespace

std::optional<CUdeviceptr> allocate(int device, std::size_t bytes) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  if (bytes > settings().memory - m.used[device]) return {};
  const int fd = memfd_create("fake_cuda", MFD_CLOEXEC);
  const std::size_t whole = (bytes + page - 1) / page * page;
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(whole)) != 0) return {};
  const std::optional<Piece> piece = map_piece(fd, bytes, device);
  if (!piece) return {};
  std::memset(piece->reachable, poison, piece->bytes);
  m.used[device] += bytes;
  m.pieces[piece->address] = *piece;
  return piece->address;
}

bool release(CUdeviceptr address) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto found = m.pieces.find(address);
  if (found == m.pieces.end() || found->second.opened > 0) return false;
  m.used[found->second.device] -= found->second.asked;
  unmap(found->second);
  m.pieces.erase(found);
  return true;
}

std::size_t free_memory(int device) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  return settings().memory - m.used[device];
}

std::optional<Piece> piece_of(CUdeviceptr address) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto found = find(m, address);
  if (found == m.pieces.end()) return {};
  return found->second;
}

std::byte* reach(CUdeviceptr address) {
  const std::optional<Piece> piece = piece_of(address);
  return piece ? piece->reachable + (address - piece->address)
               : reinterpret_cast<std::byte*>(address);
}

std::byte* reach_by_kernel(int device, CUdeviceptr address) {
  const std::optional<Piece> piece = piece_of(address);
  if (piece && piece->device != device && !settings().peer_access) lost() = true;
  return reach(address);
}

CUresult export_piece(CUdeviceptr address, CUipcMemHandle* handle) {
  const std::optional<Piece> piece = piece_of(address);
  if (!piece || piece->opened > 0) return CUDA_ERROR_INVALID_VALUE;
  const Handle mine{getpid(), piece->fd, settings().first + piece->device, piece->asked};
  std::memset(handle, 0, sizeof *handle);
  std::memcpy(handle, &mine, sizeof mine);
  return CUDA_SUCCESS;
}

CUresult import_piece(int device, const CUipcMemHandle& handle, CUdeviceptr* address) {
  Handle theirs{};
  std::memcpy(&theirs, &handle, sizeof theirs);
  if (theirs.pid == getpid()) return CUDA_ERROR_INVALID_CONTEXT;  // as the real one
  if (theirs.device != settings().first + device && !settings().peer_access) {
    return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
  }
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/fd/%d", theirs.pid, theirs.fd);
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  struct stat theirs_now {};
  if (fd < 0 || fstat(fd, &theirs_now) != 0) return CUDA_ERROR_INVALID_VALUE;
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  for (auto& [known, piece] : m.pieces) {  // what is open already, once more
    struct stat mine {};
    if (piece.opened > 0 && fstat(piece.fd, &mine) == 0 && mine.st_ino == theirs_now.st_ino &&
        mine.st_dev == theirs_now.st_dev) {
      ++piece.opened;
      close(fd);
      *address = known;
      return CUDA_SUCCESS;
    }
  }
  std::optional<Piece> piece = map_piece(fd, theirs.bytes, theirs.device - settings().first);
  if (!piece) return CUDA_ERROR_OUT_OF_MEMORY;
  piece->opened = 1;
  *address = piece->address;
  m.pieces[piece->address] = *piece;
  return CUDA_SUCCESS;
}

CUresult close_piece(CUdeviceptr address) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto found = m.pieces.find(address);
  if (found == m.pieces.end() || found->second.opened == 0) return CUDA_ERROR_INVALID_VALUE;
  if (--found->second.opened == 0) {
    unmap(found->second);
    m.pieces.erase(found);
  }
  return CUDA_SUCCESS;
}

bool pin(void* address, std::size_t bytes) {
  if (pinned(address)) return false;
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  m.pinned[reinterpret_cast<CUdeviceptr>(address)] = bytes;
  return true;
}

bool unpin(void* address) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  return m.pinned.erase(reinterpret_cast<CUdeviceptr>(address)) > 0;
}

bool pinned(const void* address) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  return around(m.pinned, reinterpret_cast<CUdeviceptr>(address),
                [](std::size_t bytes) { return bytes; }) != m.pinned.end();
}

std::size_t pinned_bytes(const void* address) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto found = m.pinned.find(reinterpret_cast<CUdeviceptr>(address));
  return found == m.pinned.end() ? 0 : found->second;
}

}  // namespace fake_cuda
