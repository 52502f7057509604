#include "slipstream/runtime/socket_internal.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace slip {
namespace {

using namespace std::chrono_literals;

// A host whose packets are swallowed must not use up the time of its other addresses.
constexpr Duration longest_attempt = 5s;

struct Addresses {
  std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list{nullptr, &freeaddrinfo};
  int error = 0;
};

Addresses resolve(const std::string& host, int port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  Addresses addresses;
  addresses.error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (addresses.error == 0) addresses.list.reset(found);
  return addresses;
}

void set_option(const FileDescriptor& socket, int level, int option, int value) {
  if (setsockopt(socket.get(), level, option, &value, sizeof value) < 0) throw_errno("setsockopt");
}

// Connecting to a free port of one's own host may pick that very port as the source and so connect
// the socket to itself.
bool is_connected_to_itself(const FileDescriptor& socket) {
  sockaddr_storage local{}, remote{};
  socklen_t local_length = sizeof local, remote_length = sizeof remote;
  return getsockname(socket.get(), reinterpret_cast<sockaddr*>(&local), &local_length) == 0 &&
         getpeername(socket.get(), reinterpret_cast<sockaddr*>(&remote), &remote_length) == 0 &&
         local_length == remote_length && std::memcmp(&local, &remote, local_length) == 0;
}

ConnectAttempt failed(int error) { return {{}, std::strerror(error)}; }

ConnectAttempt connect_address(const addrinfo& address, Time deadline) {
  FileDescriptor socket(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return failed(errno);
  if (connect(socket.get(), address.ai_addr, address.ai_addrlen) < 0) {
    if (errno != EINPROGRESS && errno != EINTR) return failed(errno);
    if (!wait_ready(socket.get(), POLLOUT, std::min(deadline, deadline_after(longest_attempt)))) {
      return failed(ETIMEDOUT);
    }
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return failed(error);
  }
  if (is_connected_to_itself(socket)) return failed(ECONNREFUSED);
  set_stream_options(socket);
  return {std::move(socket), ""};
}

}  // namespace

std::string endpoint_name(const std::string& host, int port) {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

FileDescriptor listen_on(const std::string& host, int port) {
  const std::string where = endpoint_name(host, port);
  const Addresses addresses = resolve(host, port, AI_PASSIVE);
  if (addresses.error != 0) {
    throw Error(Code::bootstrap_failed, fmt::format("rendezvous {}: cannot listen there: {}", where,
                                                    gai_strerror(addresses.error)));
  }
  int error = 0;
  for (const addrinfo* a = addresses.list.get(); a != nullptr; a = a->ai_next) {
    FileDescriptor socket(::socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (socket) {
      // A port whose last owner has just ended is free.
      set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
      if (bind(socket.get(), a->ai_addr, a->ai_addrlen) == 0 &&
          listen(socket.get(), SOMAXCONN) == 0) {
        return socket;
      }
    }
    error = errno;
  }
  const char* advice = error == EADDRINUSE ? "choose another port"
                       : error == EADDRNOTAVAIL
                           ? "rank 0 must run on the host that has this address"
                           : "check host and port";
  throw Error(Code::bootstrap_failed, fmt::format("rendezvous {}: cannot listen there: {}; {}",
                                                  where, std::strerror(error), advice));
}

int port_of(const FileDescriptor& listener) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) < 0) {
    throw_errno("getsockname");
  }
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

std::string peer_name(const sockaddr* address, unsigned length) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo(address, length, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "an unknown address";
  }
  return endpoint_name(host, std::atoi(port));
}

ConnectAttempt connect_to(const std::string& host, int port, Time deadline) {
  const Addresses addresses = resolve(host, port, 0);
  if (addresses.error == EAI_AGAIN) return {{}, gai_strerror(addresses.error)};
  if (addresses.error != 0) {
    throw Error(Code::bootstrap_failed,
                fmt::format("rendezvous {}: {}; check the host's name", endpoint_name(host, port),
                            gai_strerror(addresses.error)));
  }
  ConnectAttempt attempt;
  for (const addrinfo* a = addresses.list.get(); a != nullptr; a = a->ai_next) {
    attempt = connect_address(*a, deadline);
    if (attempt.socket) break;
  }
  return attempt;
}

void set_stream_options(const FileDescriptor& socket) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 25'000);
}

}  // namespace slip
