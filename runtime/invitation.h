#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "slipstream/base/time.h"
#include "slipstream/runtime/tcp_bootstrap.h"

namespace slip {

/// What a launcher carries from rank 0 to the others so that they meet: where rank 0 serves the
/// rendezvous, and the secret of this world. As text it is "HOST:PORT SECRET".
struct Invitation {
  Endpoint where;
  std::string secret;
};

/// "10.0.0.1:4000 SECRET".
std::string to_text(const Invitation& invitation);
/// Anything else is Error(bad_data).
Invitation parse_invitation(std::string_view text);

/// Rank 0's part: serves a rendezvous for `size` workers under a secret of its own, and joins it.
/// It listens on the loopback address where all workers are `on_one_host`; else on that of
/// SLIP_INTERFACE, by default the one that this host's name stands for, or its first. The port is
/// one of SLIP_PORTS (LOW-HIGH), by default any. Throws Error.
std::unique_ptr<TcpBootstrap> open_rendezvous(int size, bool on_one_host, Duration timeout);

/// The invitation to what open_rendezvous has opened.
Invitation invitation_to(const TcpBootstrap& opened);

/// The others' part. Throws Error.
std::unique_ptr<TcpBootstrap> accept_invitation(const Invitation& invitation, int rank, int size,
                                                Duration timeout);

}  // namespace slip
