#include "slipstream/tools/slip/machine.h"

#include <fmt/format.h>
#include <linux/membarrier.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "slipstream/runtime/machine.h"
#include "slipstream/transport/shm/segment.h"

namespace slip::cli {
namespace {

Resources::Space memory() {
  const auto pages = static_cast<std::uint64_t>(std::max(0L, sysconf(_SC_PHYS_PAGES)));
  const std::uint64_t bytes = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return {bytes, std::min<std::uint64_t>(bytes, shm::available_memory())};
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
