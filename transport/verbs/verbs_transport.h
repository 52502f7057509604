#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "slipstream/base/time.h"
#include "slipstream/transport/network_transport.h"
#include "slipstream/transport/verbs/verbs_settings.h"

namespace slip {

/// What this process has of it. `link` is what both ends of a connection must share.
struct VerbsStatus {
  std::string unusable;     // why it cannot be used, and what to do; empty: it can
  std::string link;         // "infiniband" or "ethernet"
  std::string description;  // "rxe0 port 1, ethernet, GID 1 (::ffff:10.9.0.1), MTU 4096"
};
/// Opens the device and closes it again. Never throws.
VerbsStatus verbs_status(const VerbsSettings& settings = {});

/// What a transport is made for.
struct VerbsOptions {
  int rank = 0;
  int workers = 2;  // of the world; the receive queue is sized for all of them
  /// From whom nothing is heard for so long is lost. A progress thread says every second that it
  /// lives, so this is no bound on what a worker computes.
  Duration peer_timeout = std::chrono::seconds(10);
  /// How long `attach` waits for the peer.
  Duration connect_timeout = std::chrono::seconds(30);
  /// Rung when a word has arrived; made where it is null.
  std::shared_ptr<Doorbell> doorbell = {};
  VerbsSettings settings = {};
  /// Where there are several devices: the name of the one to prefer.
  std::function<std::string()> nearest = {};
};

/// How a transport's device would reach memory of that GPU, and why not better: "dma-buf",
/// "nvidia-peermem (dma-buf: ...)", "staged through the host's memory (...)". Never throws.
std::string verbs_gpu_path(const VerbsOptions& options, int gpu);

/// Workers of any hosts of one InfiniBand or RoCE network, through libibverbs: one queue pair of a
/// reliable connection for each peer, made on first use. docs/ordering.md says what orders a
/// payload before its word.
///
/// Payloads are RDMA writes. A word is a write with immediate data, behind them, into a cell of a
/// mailbox that the sender has at the receiver; whoever drives the receiver reads its completion,
/// checks the cell and stores the word. Small payloads travel in the cell. So a receiver makes
/// progress only where somebody drives it: its progress thread, or the worker itself while it
/// spins.
class VerbsTransport : public NetworkTransport {
 public:
  /// As VerbsStatus::description.
  virtual std::string description() const = 0;
};

/// Error(not_supported) says what is missing and what to do. When it is destroyed it closes its
/// connections, waiting a second at most; what peers put from then on is lost.
std::unique_ptr<VerbsTransport> make_verbs_transport(VerbsOptions options);

}  // namespace slip
