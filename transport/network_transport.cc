#include "slipstream/transport/network_transport.h"

#include <fmt/format.h>

namespace slip {

Region NetworkTransport::share(const Region& region, Bell bell) {
  require_host(region.device(), name());
  return share({std::make_shared<Region>(region), region.data()}, region.bytes(), bell, nullptr);
}

std::optional<Region> NetworkTransport::share_gpu(const Region&, Bell, std::shared_ptr<Landing>,
                                                  std::string* why) {
  *why = fmt::format("{} knows no memory of GPUs", name());
  return std::nullopt;
}

std::shared_ptr<void> NetworkTransport::hold_source(const RemoteRegion&, const std::byte*,
                                                    std::size_t) {
  return nullptr;
}

}  // namespace slip
