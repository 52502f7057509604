#include "slipstream/transport/region.h"

#include <fmt/format.h>
#include <unistd.h>

namespace slip {

void Wakeup::wake(Bell bell) const {
  if (bell == Bell::worker) {
    wake_worker(*doorbell);
  } else {
    const char byte = 0;
    // A full pipe means that a wake-up is pending already.
    [[maybe_unused]] const auto written = write(progress_fd, &byte, 1);
  }
}

Status out_of_bounds(const RemoteRegion& to, std::size_t offset, std::size_t bytes) {
  return {Code::invalid_argument,
          fmt::format("put of {} bytes at {} into a region of {} bytes at rank {}", bytes, offset,
                      to.bytes, to.peer),
          to.peer};
}

Status check_source(const RemoteRegion& to, const void* from, int device) {
  if (gpu::reaches(device, from)) [[likely]]
    return {};
  return {Code::invalid_argument,
          fmt::format("a put into memory of a GPU at rank {} takes its payload from {}, and was "
                      "given {}; copy it there first",
                      to.peer, gpu::describe(device), gpu::describe(gpu::device_of(from))),
          to.peer};
}

void require_host(int device, std::string_view transport) {
  if (device == gpu::host) return;
  throw Error(Code::not_supported,
              fmt::format("transport {} has no memory of GPU {}; choose cuda_ipc, ucx or verbs",
                          transport, device));
}

}  // namespace slip
