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

}  // namespace slip
