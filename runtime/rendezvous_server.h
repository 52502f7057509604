#pragma once

#include <memory>
#include <string>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"

namespace slip {

/// The store and barrier behind TcpBootstrap: one thread that serves one world over TCP, in the
/// launcher or in rank 0. It tells every worker when one of them is lost, and drops whoever does
/// not speak the protocol. What it refuses or loses is one warning each (docs/using.md tells where
/// to).
///
/// Whoever knows `secret` may join, and each worker can tell that this rendezvous knows it, too
/// (HMAC-SHA256 of fresh random numbers); what is said then is neither encrypted nor signed.
/// Without a secret it trusts whoever can connect. Methods are thread-safe.
class RendezvousServer {
 public:
  /// Listens at an address of this machine, for a world of `size` workers. Port 0 takes a free one.
  /// `served_by` is the rank in whose process it runs, -1 for a launcher. Throws
  /// Error(bootstrap_failed | invalid_argument).
  RendezvousServer(const std::string& bind_address, int port, int size, int served_by = -1,
                   std::string secret = {});
  /// Ends the thread and closes every connection.
  ~RendezvousServer();
  RendezvousServer(const RendezvousServer&) = delete;
  RendezvousServer& operator=(const RendezvousServer&) = delete;

  int port() const;

  /// For a launcher that has seen a worker die, perhaps before it ever joined: the others hear
  /// `message` at once. Of no effect if the rank has said goodbye.
  void report_lost(int rank, const std::string& message);

  /// Ok, or the first failure, with the worker that it is of: aborted with its own words if it has
  /// said why, else peer_lost.
  Status failure() const;

  /// Waits until no worker is connected; false if some still are after `timeout`.
  bool wait_until_empty(Duration timeout);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace slip
