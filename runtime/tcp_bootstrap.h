#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"
#include "slipstream/runtime/bootstrap.h"
#include "slipstream/runtime/rendezvous_server.h"

namespace slip {

/// Where a rendezvous is.
struct Endpoint {
  std::string host;
  int port = 0;
};

/// "10.0.0.1:4000", "node7:4000" or "[::1]:4000"; anything else is Error(invalid_argument).
Endpoint parse_endpoint(std::string_view text);

/// Meets the other workers at a RendezvousServer, which runs in the launcher or in rank 0.
///
/// Once a worker is lost, this and every later call throws Error(peer_lost) with its rank. A fence
/// that times out for one worker times out for all that wait in it, and names those who are
/// missing.
class TcpBootstrap final : public Bootstrap {
 public:
  /// Who joins, and where.
  struct Options {
    std::string host;
    int port = 0;
    int rank = 0;
    int size = 1;
    std::uint16_t incarnation = 1;
    /// For joining, and for every put.
    Duration timeout = std::chrono::seconds(30);
    /// This worker, which must be rank 0, also runs the server.
    bool serve = false;
    /// What all workers must know; see RendezvousServer.
    std::string secret{};
  };

  /// Joins; keeps trying until the time-out, as rank 0 or its host may come up later. Returns when
  /// this worker is accepted, which does not mean that all are there.
  explicit TcpBootstrap(const Options& options);

  /// Says goodbye, unless an exception is unwinding the stack: then the others hear that this
  /// worker is lost. The worker that serves stays until the others have left, at most the time-out.
  ~TcpBootstrap() override;

  /// As they came to be: `port` is that of the server.
  const Options& options() const { return options_; }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  std::uint16_t incarnation() const override { return options_.incarnation; }
  std::string describe() const override;

  /// At most 16 MiB under a name of 1 to 256 bytes.
  void put(std::string_view name, std::string_view value) override;
  std::string get(std::string_view name, Duration timeout) override;
  std::vector<std::string> all_gather(std::string_view name, std::string_view value,
                                      Duration timeout) override;
  void fence(Duration timeout) override;
  /// Returns when the server knows; the first reason is what it tells everybody.
  void fail(std::string_view reason) override;

 private:
  class Wire;

  void check_value(std::string_view name, std::string_view value) const;

  Options options_;
  std::unique_ptr<RendezvousServer> server_;
  std::unique_ptr<Wire> wire_;
  int exceptions_at_start_;
};

/// What a launcher tells its workers, or a user by hand; nothing where SLIP_RENDEZVOUS is not set.
/// Error(invalid_argument) names the variable that is missing or wrong.
///
///   SLIP_RENDEZVOUS         HOST:PORT of the server
///   SLIP_RANK, SLIP_SIZE    this worker and the number of workers; srun's tasks need not say it
///   SLIP_RENDEZVOUS_SERVER  who runs it: `rank0` (default) or `launcher`
///   SLIP_SECRET             what all workers must know, by default nothing
std::optional<TcpBootstrap::Options> tcp_options_from_environment();

}  // namespace slip
