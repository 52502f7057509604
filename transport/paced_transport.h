#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "slipstream/base/time.h"
#include "slipstream/transport/delayer.h"
#include "slipstream/transport/sim/network.h"
#include "slipstream/transport/transport.h"

namespace slip {

/// A modelled network in real time. It knows the messages of those who share it: workers that are
/// threads share one, so that the NICs of senders and of receivers are modelled; a worker that is a
/// process has its own, in which nobody else sends: it models that worker's sending, and neither
/// the NIC that other workers of its host send through nor what others send to its receivers.
/// Thread-safe.
class PacedNetwork {
 public:
  PacedNetwork(int workers, sim::NetworkOptions options) : network_(workers, std::move(options)) {}

  /// When a message handed over now arrives, by steady_clock. A receiver's NIC takes messages in
  /// the order in which they are handed over, which is simpler than the simulator's.
  Time arrival(int from, int to, std::size_t bytes);

 private:
  std::mutex mutex_;
  sim::Network network_;
};

/// Wraps any transport and lets each put take effect when the modelled network says that it
/// arrives, never before; how long after depends on the machine. For experiments on one host: it
/// copies, allocates and locks. What is under way when it ends lands at once.
class PacedTransport final : public Transport {
 public:
  /// `wake` rings the worker's own doorbell, for `drained`.
  PacedTransport(std::unique_ptr<Transport> inner, std::shared_ptr<PacedNetwork> network, int rank,
                 std::function<void()> wake);
  ~PacedTransport() override;

  std::string_view name() const override { return inner_->name(); }
  Region allocate(std::size_t bytes, Bell bell, int device) override;
  /// Never mapped, so that nothing passes by the network.
  RemoteRegion attach(int peer, std::string_view key) override;
  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override;
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override;
  bool copies_at_post() const override { return true; }
  bool drained(int peer) override;
  int progress_fd() const override { return inner_->progress_fd(); }
  void arm() override { inner_->arm(); }
  void progress() override { inner_->progress(); }

 private:
  struct Signal {
    std::size_t offset;
    Word word;
  };
  struct Put {
    Time due;
    RemoteRegion to;
    std::size_t offset;
    std::vector<std::byte> payload;
    std::optional<Signal> signal;
  };
  /// While puts are waiting, one call of `deliver` is under way.
  struct Peer {
    std::deque<Put> waiting;
    bool awaited = false;  // the worker waits for `drained`
    Status failure;        // of a put that was due; reported by the next
  };

  Status post(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
              std::optional<Signal> signal);
  Status put_now(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                 const std::optional<Signal>& signal);
  void deliver(int to);

  const std::unique_ptr<Transport> inner_;
  const std::shared_ptr<PacedNetwork> network_;
  const int rank_;
  const std::function<void()> wake_;
  std::mutex mutex_;  // guards the following
  bool ending_ = false;
  std::unordered_map<int, Peer> peers_;
  std::unique_ptr<Delayer> delayer_;
};

}  // namespace slip
