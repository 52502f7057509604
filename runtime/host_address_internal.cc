#include "slipstream/runtime/host_address_internal.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/runtime/posix_internal.h"

namespace slip {
namespace {

struct Address {
  std::string interface;
  std::string text;
  bool is_loopback;
};

/// Empty for what is neither IPv4 nor IPv6, and for link-local addresses, which need a scope.
std::string text_of(const sockaddr* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address != nullptr && address->sa_family == AF_INET) {
    const auto* const in = reinterpret_cast<const sockaddr_in*>(address);
    inet_ntop(AF_INET, &in->sin_addr, text.data(), text.size());
  } else if (address != nullptr && address->sa_family == AF_INET6) {
    const auto* const in = reinterpret_cast<const sockaddr_in6*>(address);
    if (!IN6_IS_ADDR_LINKLOCAL(&in->sin6_addr)) {
      inet_ntop(AF_INET6, &in->sin6_addr, text.data(), text.size());
    }
  }
  return text.data();
}

/// Of the interfaces that are up, in the system's order, IPv4 first.
std::vector<Address> addresses_here() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) throw_errno("getifaddrs");
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owned(list, &freeifaddrs);
  std::vector<Address> found;
  for (const int family : {AF_INET, AF_INET6}) {
    for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
      if ((one->ifa_flags & IFF_UP) == 0 || one->ifa_addr == nullptr) continue;
      if (one->ifa_addr->sa_family != family) continue;
      if (std::string text = text_of(one->ifa_addr); !text.empty()) {
        found.push_back({one->ifa_name, std::move(text), (one->ifa_flags & IFF_LOOPBACK) != 0});
      }
    }
  }
  return found;
}

/// What this host's name stands for.
std::vector<std::string> addresses_of_name() {
  std::array<char, 256> name{};
  addrinfo* list = nullptr;
  if (gethostname(name.data(), name.size() - 1) != 0) return {};
  if (getaddrinfo(name.data(), nullptr, nullptr, &list) != 0) return {};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(list, &freeaddrinfo);
  std::vector<std::string> texts;
  for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
    texts.push_back(text_of(one->ai_addr));
  }
  return texts;
}

}  // namespace

std::string address_of_this_host() {
  const std::vector<Address> all = addresses_here();
  std::vector<std::string> interfaces;
  for (const Address& one : all) interfaces.push_back(one.interface);
  if (const char* wanted = std::getenv("SLIP_INTERFACE")) {
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const Address& one) { return one.interface == wanted; });
    if (found != all.end()) return found->text;
    throw Error(Code::invalid_argument,
                fmt::format("SLIP_INTERFACE is '{}'; interfaces with an address here are {}",
                            printable(wanted), fmt::join(interfaces, ", ")));
  }
  const std::vector<std::string> named = addresses_of_name();
  const Address* first = nullptr;
  for (const Address& one : all) {
    if (one.is_loopback) continue;
    if (std::find(named.begin(), named.end(), one.text) != named.end()) return one.text;
    if (first == nullptr) first = &one;
  }
  if (first != nullptr) return first->text;
  throw Error(Code::bootstrap_failed,
              fmt::format("this host has no address that others reach (interfaces: {}); bring one "
                          "up, or name it in SLIP_INTERFACE",
                          fmt::join(interfaces, ", ")));
}

}  // namespace slip
