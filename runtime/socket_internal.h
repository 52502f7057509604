#pragma once

#include <string>

#include "slipstream/base/time.h"
#include "slipstream/runtime/posix_internal.h"

#pragma GCC visibility push(hidden)

struct sockaddr;

namespace slip {

/// "10.0.0.1:4000", "[::1]:4000", "node7:4000".
std::string endpoint_name(const std::string& host, int port);

/// A listening socket on the first of the host's addresses that is this machine's own; port 0 takes
/// a free one. Error(bootstrap_failed) says why there is none.
FileDescriptor listen_on(const std::string& host, int port);

/// The port that a listening socket has got.
int port_of(const FileDescriptor& listener);

/// "10.0.0.2:51034" of whoever is at the other end.
std::string peer_name(const sockaddr* address, unsigned length);

/// A connected socket, or why there is none yet. Both kinds of sockets are non-blocking, are closed
/// on exec, send without delay and notice a host that has vanished within half a minute.
struct ConnectAttempt {
  FileDescriptor socket;
  std::string failure;
};

/// Tries each address of the host once. A name that does not exist throws Error(bootstrap_failed);
/// what may get better with time is a failure to try again after. Looking a name up is bounded by
/// the resolver's own time-outs and not by the deadline.
ConnectAttempt connect_to(const std::string& host, int port, Time deadline);

/// For a socket that came from accept.
void set_stream_options(const FileDescriptor& socket);

}  // namespace slip

#pragma GCC visibility pop
