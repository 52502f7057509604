#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>

#include "slipstream/runtime/posix_internal.h"
#include "slipstream/runtime/socket_internal.h"

namespace slip {

/// A port of this host that nobody listens at and that no stranger is given; a rendezvous that is
/// told to may listen there.
class ReservedPort {
 public:
  ReservedPort() {
    const int yes = 1;  // what listen_on() sets, too: two such may share a port while one listens
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(socket_.get(), any, sizeof address) < 0) {
      throw_errno("bind");
    }
  }

  int number() const { return port_of(socket_); }

 private:
  FileDescriptor socket_ = checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
};

}  // namespace slip
