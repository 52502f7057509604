#include "slipstream/runtime/invitation.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <random>

#include "slipstream/runtime/host_address_internal.h"
#include "slipstream/runtime/posix_internal.h"
#include "slipstream/runtime/secret_internal.h"
#include "slipstream/runtime/socket_internal.h"

namespace slip {
namespace {

struct Ports {
  int low = 0;  // 0: any free one
  int high = 0;
};

Ports ports_from_environment() {
  const char* text = std::getenv("SLIP_PORTS");
  if (text == nullptr) return {};
  const std::string_view words = text;
  const std::size_t dash = words.find('-');
  const auto number = [](std::string_view digits) {
    int value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc{} && end == digits.data() + digits.size() ? value : 0;
  };
  Ports ports;
  if (dash != words.npos) ports = {number(words.substr(0, dash)), number(words.substr(dash + 1))};
  if (ports.low >= 1 && ports.low <= ports.high && ports.high <= 65535) return ports;
  throw Error(Code::invalid_argument,
              fmt::format("SLIP_PORTS is '{}'; allowed are ranges of ports such as 20000-20100",
                          printable(words)));
}

}  // namespace

std::string to_text(const Invitation& invitation) {
  return fmt::format("{} {}", endpoint_name(invitation.where.host, invitation.where.port),
                     invitation.secret);
}

Invitation parse_invitation(std::string_view text) {
  const std::size_t space = text.find(' ');
  try {
    if (space != text.npos) {
      return {parse_endpoint(text.substr(0, space)), std::string(text.substr(space + 1))};
    }
  } catch (const Error&) {
    // Below.
  }
  throw Error(Code::bad_data, fmt::format("rank 0 invites to '{}', which is no HOST:PORT SECRET",
                                          printable(text.substr(0, space))));
}

std::unique_ptr<TcpBootstrap> open_rendezvous(int size, bool on_one_host, Duration timeout) {
  TcpBootstrap::Options options;
  options.host = on_one_host ? "127.0.0.1" : address_of_this_host();
  options.size = size;
  options.serve = true;
  options.secret = new_secret();
  options.timeout = timeout;
  const Ports ports = ports_from_environment();
  // Jobs of one host begin at different ports, so that they seldom meet.
  const int count = ports.high - ports.low + 1;
  const auto first = static_cast<int>(std::random_device{}() % static_cast<unsigned>(count));
  for (int tried = 0;; ++tried) {
    options.port = ports.low + (first + tried) % count;
    try {
      return std::make_unique<TcpBootstrap>(options);
    } catch (const Error&) {
      if (tried + 1 == count) throw;
    }
  }
}

Invitation invitation_to(const TcpBootstrap& opened) {
  return {{opened.options().host, opened.options().port}, opened.options().secret};
}

std::unique_ptr<TcpBootstrap> accept_invitation(const Invitation& invitation, int rank, int size,
                                                Duration timeout) {
  TcpBootstrap::Options options;
  options.host = invitation.where.host;
  options.port = invitation.where.port;
  options.secret = invitation.secret;
  options.rank = rank;
  options.size = size;
  options.timeout = timeout;
  return std::make_unique<TcpBootstrap>(options);
}

}  // namespace slip
