#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "slipstream/transport/verbs/device_internal.h"

namespace slip::verbs {
namespace {

using Devices = Owned<ibv_device*, &Library::ibv_free_device_list>;

Devices list_devices(int* count) {
  const Library& lib = library();
  if (!lib.missing.empty()) {
    throw Error(Code::not_supported, "verbs is not available: " + lib.missing);
  }
  Devices devices(lib.ibv_get_device_list(count));
  if (!devices) *count = 0;  // no kernel support: as without a device
  return devices;
}

std::string state_name(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN:
      return "down";
    case IBV_PORT_INIT:
      return "initialising (no subnet manager?)";
    case IBV_PORT_ARMED:
      return "armed (not yet active)";
    case IBV_PORT_ACTIVE:
      return "active";
    default:
      return "in an unknown state";
  }
}

/// ibv_query_port, whose inline form would need the library linked. False: the driver is too old.
bool query_port(ibv_context* context, int number, ibv_port_attr* attributes) {
  const verbs_context* extended = verbs_get_ctx_op(context, query_port);
  *attributes = {};
  return extended != nullptr && extended->query_port(context, static_cast<std::uint8_t>(number),
                                                     attributes, sizeof *attributes) == 0;
}

std::vector<Gid> gids_of(ibv_context* context, int port) {
  // Of all ports, without empty ones. The kernel's interface takes no more than 64 KiB.
  std::vector<ibv_gid_entry> entries(65535 / sizeof(ibv_gid_entry));
  const auto count = library()._ibv_query_gid_table(context, entries.data(), entries.size(), 0,
                                                    sizeof(ibv_gid_entry));
  std::vector<Gid> gids;
  for (std::size_t i = 0; count > 0 && i < static_cast<std::size_t>(count); ++i) {
    const ibv_gid_entry& entry = entries[i];
    if (entry.port_num != static_cast<std::uint32_t>(port)) continue;
    Gid gid;
    gid.index = static_cast<int>(entry.gid_index);
    gid.kind = entry.gid_type == IBV_GID_TYPE_ROCE_V2   ? Gid::Kind::roce_v2
               : entry.gid_type == IBV_GID_TYPE_ROCE_V1 ? Gid::Kind::roce_v1
                                                        : Gid::Kind::infiniband;
    std::memcpy(gid.bytes.data(), entry.gid.raw, gid.bytes.size());
    gids.push_back(gid);
  }
  return gids;
}

void add_ports(ibv_context* context, const std::string& device, std::vector<Port>& ports) {
  ibv_device_attr attributes{};
  if (library().ibv_query_device(context, &attributes) != 0) return;
  for (int number = 1; number <= attributes.phys_port_cnt; ++number) {
    ibv_port_attr found;
    if (!query_port(context, number, &found)) continue;
    Port port;
    port.device = device;
    port.number = number;
    port.is_active = found.state == IBV_PORT_ACTIVE;
    port.state = state_name(found.state);
    port.link = found.link_layer == IBV_LINK_LAYER_ETHERNET ? Link::ethernet : Link::infiniband;
    port.lid = found.lid;
    port.mtu = mtu_bytes(found.active_mtu);
    port.gids = gids_of(context, number);
    for (int i = 0; i < found.pkey_tbl_len; ++i) {
      __be16 pkey = 0;
      if (library().ibv_query_pkey(context, static_cast<std::uint8_t>(number), i, &pkey) != 0)
        break;
      if (pkey == 0 && i > 0) break;  // the rest is empty
      port.pkeys.push_back(be16toh(pkey));
    }
    ports.push_back(std::move(port));
  }
}

std::string lockable_memory() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  return limit.rlim_cur == RLIM_INFINITY ? "unlimited" : fmt::format("{} bytes", limit.rlim_cur);
}

}  // namespace

std::vector<Port> list_ports() {
  int count = 0;
  const Devices devices = list_devices(&count);
  std::vector<Port> ports;
  for (int i = 0; i < count; ++i) {
    ibv_device* device = devices.get()[i];
    const Context context(library().ibv_open_device(device));
    if (context) add_ports(context.get(), library().ibv_get_device_name(device), ports);
  }
  if (ports.empty() && count > 0) {
    throw Error(Code::not_supported,
                fmt::format("verbs: none of {} RDMA devices can be opened ({}); may this user read "
                            "and write /dev/infiniband/uverbs*?",
                            count, std::strerror(errno)));
  }
  return ports;
}

Device::Device(const VerbsSettings& settings, const std::function<std::string()>& nearest)
    : choice_(choose(list_ports(), settings, nearest)) {
  int count = 0;
  const Devices devices = list_devices(&count);
  for (int i = 0; i < count && !context_; ++i) {
    if (library().ibv_get_device_name(devices.get()[i]) != choice_.device) continue;
    context_.reset(library().ibv_open_device(devices.get()[i]));
  }
  if (!context_) throw_verbs(choice_, "cannot be opened", errno);
  if (library().ibv_query_device(context_.get(), &limits_) != 0) {
    throw_verbs(choice_, "tells nothing of itself", errno);
  }
  domain_.reset(library().ibv_alloc_pd(context_.get()));
  if (!domain_) throw_verbs(choice_, "cannot make a protection domain", errno);
}

Registration Device::try_register(void* memory, std::size_t bytes) const {
  return Registration(library().ibv_reg_mr(domain_.get(), memory, bytes,
                                           IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
}

Registration Device::register_memory(void* memory, std::size_t bytes) const {
  Registration registration = try_register(memory, bytes);
  if (registration) return registration;
  const int error = errno;
  throw Error(error == ENOMEM ? Code::out_of_memory : Code::io,
              fmt::format("verbs: cannot register {} bytes with {}: {}; this process may lock {}: "
                          "raise it (ulimit -l unlimited, or memlock in limits.conf)",
                          bytes, choice_.device, std::strerror(error), lockable_memory()));
}

ibv_ah_attr Device::route_to(const Place& there) const {
  ibv_ah_attr route{};
  route.port_num = static_cast<std::uint8_t>(choice_.port);
  route.dlid = there.lid;
  if (!needs_route(choice_, there)) return route;
  constexpr std::uint8_t hop_limit = 64;
  route.is_global = 1;
  route.grh.sgid_index = static_cast<std::uint8_t>(choice_.gid.index);
  route.grh.hop_limit = hop_limit;
  std::memcpy(route.grh.dgid.raw, there.gid.data(), there.gid.size());
  return route;
}

ibv_mtu mtu_code(int bytes) {
  return static_cast<ibv_mtu>(std::bit_width(static_cast<unsigned>(bytes)) - 8);
}
int mtu_bytes(ibv_mtu code) { return 1 << (static_cast<int>(code) + 7); }

void throw_verbs(const Choice& choice, const std::string& what, int error) {
  throw Error(error == ENOMEM ? Code::out_of_memory : Code::io,
              fmt::format("verbs: {} {}: {}", choice.device, what, std::strerror(error)));
}

}  // namespace slip::verbs
