#include "slipstream/transport/shm/segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/transport/local_memory_internal.h"

namespace slip::shm {
namespace {

std::string first_line(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::size_t number_in(const char* path) {
  const std::string text = first_line(path);
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) {
    return std::numeric_limits<std::size_t>::max();  // "max", or no such file
  }
  return std::strtoull(text.c_str(), nullptr, 10);
}

LocalMemory& local_segments() {
  static LocalMemory segments;
  return segments;
}

std::shared_ptr<std::byte> map_file(int fd, std::size_t bytes, bool close_with_it) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED)
    throw_errno(fmt::format("cannot map {} bytes of shared memory", bytes));
  return {static_cast<std::byte*>(address), [bytes, fd, close_with_it](std::byte* memory) {
            munmap(memory, bytes);
            if (close_with_it) close(fd);
          }};
}

}  // namespace

std::uint64_t host_identity() {
  static const std::uint64_t identity = [] {
    std::uint64_t hash = 0;
    for (const char c : first_line("/proc/sys/kernel/random/boot_id")) {
      hash = mix(hash ^ static_cast<unsigned char>(c));
    }
    struct stat pids {};
    if (stat("/proc/self/ns/pid", &pids) == 0) hash = mix(hash ^ pids.st_ino);
    return hash;
  }();
  return identity;
}

std::size_t available_memory() {
  std::size_t available = std::numeric_limits<std::size_t>::max();
  std::ifstream in("/proc/meminfo");
  for (std::string name; in >> name;) {
    std::size_t kib = 0;
    if (name == "MemAvailable:" && in >> kib) available = kib * 1024;
    in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  const auto limit = [&](const char* maximum, const char* used) {
    const std::size_t most = number_in(maximum);
    const std::size_t now = number_in(used);
    if (most == std::numeric_limits<std::size_t>::max() || now > most) return;
    available = std::min(available, most - now);
  };
  limit("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");
  limit("/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes");
  return available;
}

Segment create_segment(std::size_t bytes, Backing backing) {
  static std::atomic<std::uint64_t> serials{0};
  bytes = std::max<std::size_t>(bytes, 1);
  // The kernel would grant it and kill somebody later.
  if (backing == Backing::reserved && bytes > available_memory()) {
    throw Error(Code::out_of_memory,
                fmt::format("cannot reserve {} bytes of shared memory: {} are available; use fewer "
                            "workers, a smaller model or a smaller max_gap",
                            bytes, available_memory()));
  }
  const int fd = memfd_create("slipstream", MFD_CLOEXEC);
  if (fd < 0) throw_errno("cannot create a shared memory file");
  Segment segment;
  try {
    segment.memory = map_file(fd, bytes, true);
  } catch (...) {
    close(fd);
    throw;
  }
  // After mapping, which a limit may refuse at once.
  const auto length = static_cast<off_t>(bytes);
  const int error = backing == Backing::reserved ? posix_fallocate(fd, 0, length)
                    : ftruncate(fd, length) != 0 ? errno
                                                 : 0;
  if (error != 0) {
    errno = error;
    throw_errno(fmt::format("cannot reserve {} bytes of shared memory", bytes));
  }
  struct stat status {};
  if (fstat(fd, &status) != 0) throw_errno("cannot look at shared memory");
  segment.key = {host_identity(), getpid(), fd, bytes, ++serials, status.st_ino};
  local_segments().add(segment.key.serial, segment.memory);
  return segment;
}

std::shared_ptr<std::byte> map_segment(const SegmentKey& key, int rank) {
  if (key.host != host_identity()) {
    throw Error(Code::not_supported,
                fmt::format("rank {} is on another host, which shared memory does not reach", rank),
                rank);
  }
  if (key.pid == getpid()) {
    if (auto memory = local_segments().find(key.serial)) return memory;
    throw Error(Code::peer_lost, fmt::format("rank {} has freed the region", rank), rank);
  }
  const std::string path = fmt::format("/proc/{}/fd/{}", key.pid, key.fd);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    throw Error(errno == ENOENT ? Code::peer_lost : Code::io,
                fmt::format("cannot open the memory of rank {} (process {}): {}", rank, key.pid,
                            std::strerror(errno)),
                rank);
  }
  struct stat status {};
  const bool known = fstat(fd, &status) == 0;
  if (!known || status.st_ino != key.file) {
    close(fd);
    throw Error(Code::peer_lost, fmt::format("rank {} has freed the region", rank), rank);
  }
  if (static_cast<std::uint64_t>(status.st_size) < key.bytes) {
    close(fd);
    throw Error(
        Code::bad_data,
        fmt::format("the memory of rank {} (process {}) is smaller than it says", rank, key.pid),
        rank);
  }
  try {
    auto memory = map_file(fd, key.bytes, false);
    close(fd);
    return memory;
  } catch (...) {
    close(fd);
    throw;
  }
}

}  // namespace slip::shm
