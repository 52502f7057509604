#include "slipstream/tools/slip/machine.h"

#include <fmt/format.h>
#include <linux/membarrier.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string_view>

#include "slipstream/runtime/machine.h"

namespace slip::cli {
namespace {

std::optional<Resources::Space> memory() {
  std::ifstream file("/proc/meminfo");
  std::optional<std::uint64_t> total, available;
  std::string name, unit;
  for (std::uint64_t kib = 0; file >> name >> kib; std::getline(file, unit)) {
    if (name == "MemTotal:") total = kib * 1024;
    if (name == "MemAvailable:") available = kib * 1024;
  }
  if (!total || !available) return {};
  return Resources::Space{*total, *available};
}

std::optional<Resources::Space> file_system(const char* path) {
  struct statvfs info {};
  if (statvfs(path, &info) != 0) return {};
  return Resources::Space{info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize};
}

rlimit limit(__rlimit_resource which) {
  rlimit value{};
  getrlimit(which, &value);
  return value;
}

}  // namespace

Resources this_machine() {
  Resources machine;
  machine.cores = std::max(1, static_cast<int>(allowed_cpus().size()));
  machine.memory = memory();
  machine.shared_memory = file_system("/dev/shm");
  const rlimit memlock = limit(RLIMIT_MEMLOCK);
  if (memlock.rlim_cur != RLIM_INFINITY) machine.memlock = memlock.rlim_cur;
  machine.open_files = limit(RLIMIT_NOFILE).rlim_cur;
  const long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  machine.membarrier = commands > 0 && (commands & MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0;
  return machine;
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 5> units = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace slip::cli
