#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "slipstream/base/time.h"
#include "slipstream/transport/network_transport.h"

namespace slip {

/// Why this process cannot use UCX; empty: it can. Never throws.
std::string ucx_unavailable();
/// "1.13.1"; empty where it is not available.
std::string ucx_version();

/// What a UcxTransport must know of its world.
struct UcxOptions {
  int rank = 0;
  /// From whom nothing is heard for so long is lost. A progress thread says every second that it
  /// lives, so this is no bound on what a worker computes.
  Duration peer_timeout = std::chrono::seconds(10);
  /// How long `attach` waits for the peer.
  Duration connect_timeout = std::chrono::seconds(30);
  /// Rung when a word has arrived; made where it is null.
  std::shared_ptr<Doorbell> doorbell = {};
};

/// Workers of any hosts, through UCX (ucp.h of 1.13): which networks it takes is up to UCX_TLS and
/// UCX_NET_DEVICES. docs/ordering.md says what orders a payload before its word.
///
/// Where UCX maps a peer's memory (posix, sysv), payloads and words are stored there. Else a large
/// payload is put by ucp_put_nbx, or in active messages where the network has no puts, and a word
/// is an active message behind it, as is a whole small put: the receiver's progress writes the word
/// when everything before it has landed, and wakes whoever sleeps. So a receiver makes progress
/// only where somebody drives it: its progress thread, or the worker itself while it spins.
///
/// Error(not_supported) says what is missing and what to do. When it is destroyed it closes its
/// endpoints, waiting a second at most; what peers put from then on is lost.
std::unique_ptr<NetworkTransport> make_ucx_transport(UcxOptions options);

}  // namespace slip
