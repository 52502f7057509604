#include "slipstream/transport/verbs/port_internal.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "slipstream/base/error.h"

namespace slip::verbs {
namespace {

[[noreturn]] void fail(const std::string& line) { throw Error(Code::not_supported, line); }

std::string name_of(const Port& port) {
  return fmt::format("{} port {}", port.device, port.number);
}

/// "a, b, c", each once.
template <class Range, class Text>
std::string list(const Range& range, const Text& text) {
  std::vector<std::string> words;
  for (const auto& item : range) words.push_back(text(item));
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return fmt::format("{}", fmt::join(words, ", "));
}

bool is_ipv4(const GidBytes& gid) {
  static constexpr std::array<std::uint8_t, 12> prefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::equal(prefix.begin(), prefix.end(), gid.begin());
}
bool is_link_local(const GidBytes& gid) { return gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80; }

/// The larger, the better. RoCE v2 is UDP, so routers and most switches' settings are for it.
int rank_of(const Gid& gid) {
  if (gid.kind == Gid::Kind::infiniband) return 0;
  if (gid.kind == Gid::Kind::roce_v1) return is_ipv4(gid.bytes) ? 2 : 1;
  return is_ipv4(gid.bytes) ? 5 : is_link_local(gid.bytes) ? 3 : 4;
}

Gid choose_gid(const Port& port, const VerbsSettings& settings) {
  if (port.gids.empty()) {
    fail(fmt::format("verbs: {} has no GID; give its network interface an address", name_of(port)));
  }
  if (settings.gid) {
    for (const Gid& gid : port.gids) {
      if (gid.index == *settings.gid) return gid;
    }
    fail(fmt::format("verbs: SLIP_VERBS_GID is {}, which {} does not have; allowed are {}",
                     *settings.gid, name_of(port), list(port.gids, [](const Gid& gid) {
                       return fmt::format("{} ({})", gid.index, to_string(gid.bytes));
                     })));
  }
  return *std::max_element(port.gids.begin(), port.gids.end(),
                           [](const Gid& a, const Gid& b) { return rank_of(a) < rank_of(b); });
}

int choose_pkey(const Port& port, const VerbsSettings& settings) {
  // Members of a partition with and without the top bit (full, limited) are of the same one.
  const auto same = [](unsigned a, unsigned b) { return (a & 0x7fff) == (b & 0x7fff); };
  for (std::size_t i = 0; i < port.pkeys.size(); ++i) {
    const unsigned pkey = port.pkeys[i];
    if (settings.pkey ? same(pkey, *settings.pkey) : pkey != 0) return static_cast<int>(i);
  }
  if (!settings.pkey) return 0;
  fail(fmt::format("verbs: SLIP_VERBS_PKEY is {:#06x}, of which {} is no member; allowed are {}",
                   *settings.pkey, name_of(port),
                   list(port.pkeys, [](unsigned pkey) { return fmt::format("{:#06x}", pkey); })));
}

int choose_mtu(const Port& port, const VerbsSettings& settings) {
  if (!settings.mtu) return port.mtu;
  if (*settings.mtu <= port.mtu) return *settings.mtu;
  fail(
      fmt::format("verbs: SLIP_VERBS_MTU is {}, and {} has {}; raise its network interface's MTU "
                  "(ip link set DEV mtu {}), or give all workers {}",
                  *settings.mtu, name_of(port), port.mtu, *settings.mtu + 104, port.mtu));
}

}  // namespace

std::string to_string(Link link) { return link == Link::infiniband ? "infiniband" : "ethernet"; }

std::string to_string(const GidBytes& gid) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(AF_INET6, gid.data(), text, sizeof text);
  return text;
}

std::string describe(const Choice& choice) {
  return fmt::format("{} port {}, {}, GID {} ({}), MTU {}", choice.device, choice.port,
                     to_string(choice.link), choice.gid.index, to_string(choice.gid.bytes),
                     choice.mtu);
}

Choice choose(const std::vector<Port>& ports, const VerbsSettings& settings,
              const std::function<std::string()>& nearest) {
  if (ports.empty()) fail("verbs: this host has no RDMA device (ibv_devinfo shows them)");
  std::vector<const Port*> fitting;
  for (const Port& port : ports) {
    if (settings.device.empty() || port.device == settings.device) fitting.push_back(&port);
  }
  if (fitting.empty()) {
    fail(fmt::format("verbs: SLIP_VERBS_DEVICE is '{}', which is not here; allowed are {}",
                     settings.device, list(ports, [](const Port& port) { return port.device; })));
  }
  if (settings.port) {
    const std::string there = list(fitting, [](const Port* port) { return name_of(*port); });
    std::erase_if(fitting, [&](const Port* port) { return port->number != *settings.port; });
    if (fitting.empty()) {
      fail(fmt::format("verbs: SLIP_VERBS_PORT is {}, and there are only {}", *settings.port,
                       there));
    }
  }
  const std::string states = list(fitting, [](const Port* port) {
    return fmt::format("{} is {}", name_of(*port), port->state);
  });
  std::erase_if(fitting, [](const Port* port) { return !port->is_active; });
  if (fitting.empty()) {
    fail(fmt::format("verbs: no port is active: {}; connect it and set its network interface up",
                     states));
  }
  const Port* used = fitting.front();
  const auto is_other = [&](const Port* port) { return port->device != used->device; };
  if (nearest && std::any_of(fitting.begin(), fitting.end(), is_other)) {
    const auto near =
        std::find_if(fitting.begin(), fitting.end(),
                     [name = nearest()](const Port* port) { return port->device == name; });
    if (near != fitting.end()) used = *near;
  }
  const Port& port = *used;
  Choice choice;
  choice.device = port.device;
  choice.port = port.number;
  choice.link = port.link;
  choice.lid = port.lid;
  choice.gid = choose_gid(port, settings);
  choice.asked_for_gid = settings.gid.has_value();
  choice.pkey_index = choose_pkey(port, settings);
  choice.mtu = choose_mtu(port, settings);
  return choice;
}

bool needs_route(const Choice& here, const Place& there) {
  constexpr std::size_t prefix_bytes = 8;
  return here.link == Link::ethernet || here.asked_for_gid ||
         !std::equal(there.gid.begin(), there.gid.begin() + prefix_bytes, here.gid.bytes.begin());
}

}  // namespace slip::verbs

namespace slip {
namespace {

std::optional<unsigned> number_from_environment(const char* name, unsigned least, unsigned most) {
  const char* text = std::getenv(name);
  if (text == nullptr) return {};
  std::string_view digits(text);
  const bool is_hexadecimal = digits.starts_with("0x");
  if (is_hexadecimal) digits.remove_prefix(2);
  unsigned value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value,
                                            is_hexadecimal ? 16 : 10);
  if (error != std::errc() || end != digits.data() + digits.size() || value < least ||
      value > most) {
    throw Error(
        Code::invalid_argument,
        fmt::format("{} is '{}'; allowed are integers from {} to {}", name, text, least, most));
  }
  return value;
}

}  // namespace

VerbsSettings verbs_settings_from_environment() {
  VerbsSettings settings;
  if (const char* device = std::getenv("SLIP_VERBS_DEVICE")) settings.device = device;
  settings.port = number_from_environment("SLIP_VERBS_PORT", 1, 255);
  settings.gid = number_from_environment("SLIP_VERBS_GID", 0, 65535);
  settings.pkey = number_from_environment("SLIP_VERBS_PKEY", 1, 0xffff);
  settings.mtu = number_from_environment("SLIP_VERBS_MTU", 256, 4096);
  if (settings.mtu && !std::has_single_bit(static_cast<unsigned>(*settings.mtu))) {
    throw Error(
        Code::invalid_argument,
        fmt::format("SLIP_VERBS_MTU is {}; allowed are 256, 512, 1024, 2048, 4096", *settings.mtu));
  }
  if (const char* words = std::getenv("SLIP_VERBS_WORDS")) {
    static constexpr std::array<std::string_view, 3> names = {"automatic", "completion", "polled"};
    const auto found = std::find(names.begin(), names.end(), words);
    if (found == names.end()) {
      throw Error(Code::invalid_argument, fmt::format("SLIP_VERBS_WORDS is '{}'; allowed are {}",
                                                      words, fmt::join(names, ", ")));
    }
    settings.words = static_cast<VerbsSettings::Words>(found - names.begin());
  }
  return settings;
}

}  // namespace slip
