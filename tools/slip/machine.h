#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace slip::cli {

/// What the kernel lets workers have of this machine; empty where it does not say.
struct Resources {
  struct Space {
    std::uint64_t bytes = 0;
    std::uint64_t available = 0;
  };

  int cores = 0;                         // hardware threads that this process may run on
  Space memory;                          // available: what the control group leaves, too
  std::optional<Space> shared_memory;    // the file system on /dev/shm
  std::optional<std::uint64_t> memlock;  // bytes that may be locked; empty: unlimited
  std::uint64_t open_files = 0;
  bool membarrier = false;  // GLOBAL_EXPEDITED: writers need no fence
};

Resources this_machine();

/// "12.5 GiB".
std::string format_bytes(std::uint64_t bytes);

}  // namespace slip::cli
