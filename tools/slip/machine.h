#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace slip::cli {

/// What this machine offers to workers on it, as the kernel says; empty where it does not say.
struct Machine {
  struct Space {
    std::uint64_t bytes = 0;
    std::uint64_t available = 0;
  };

  int cores = 0;            // that this process may run on
  int cores_installed = 0;  // of the machine
  int numa_nodes = 1;
  std::optional<Space> memory;
  std::optional<Space> shared_memory;    // the file system on /dev/shm
  std::optional<std::uint64_t> memlock;  // bytes that may be locked; empty: unlimited
  std::uint64_t open_files = 0;
  bool membarrier = false;  // GLOBAL_EXPEDITED: writers need no fence
};

Machine this_machine();

/// "12.5 GiB".
std::string format_bytes(std::uint64_t bytes);

}  // namespace slip::cli
