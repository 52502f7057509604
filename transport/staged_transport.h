#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "slipstream/transport/network_transport.h"

namespace slip {

/// Memory of GPUs over a network, by way of pinned memory of the host where the network knows none.
///
/// Where it receives, peers put into the GPU's memory if the network's devices can write it, and
/// what they have written is flushed before its word is stored. Else a region has pinned memory of
/// the same size, into which peers put; what has come is copied from there to where it belongs, on
/// one stream for all regions, and words follow on it.
/// Where it sends, a put is copied on gpu::current_stream into pinned pieces, each of which is put
/// when it is full, while the next is copied. A worker has memory of one GPU.
class StagedTransport final : public NetworkTransport {
 public:
  explicit StagedTransport(std::unique_ptr<NetworkTransport> network);
  ~StagedTransport() override;

  std::string_view name() const override { return network_->name(); }
  Region allocate(std::size_t bytes, Bell bell, int device) override;
  Region share(const Region& region, Bell bell) override;
  Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
               std::shared_ptr<Landing> landing) override {
    return network_->share(memory, bytes, bell, std::move(landing));
  }
  RemoteRegion attach(int peer, std::string_view key) override;
  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override;
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override;
  bool copies_at_post() const override { return network_->copies_at_post(); }
  bool drained(int peer) override;
  int progress_fd() const override { return network_->progress_fd(); }
  void arm() override { network_->arm(); }
  void progress() override { network_->progress(); }
  void drive() override { network_->drive(); }
  void rest() override { network_->rest(); }
  void announce_by(std::shared_ptr<Announcer> announcer) override {
    network_->announce_by(std::move(announcer));
  }
  void on_lost(std::function<void(const Status& why)> lost) override {
    network_->on_lost(std::move(lost));
  }
  void disconnect(int peer) override { network_->disconnect(peer); }
  void ring(Bell bell) override { network_->ring(bell); }
  std::shared_ptr<Doorbell> doorbell() const override { return network_->doorbell(); }

 private:
  struct Ends;
  struct Signal {
    std::size_t offset;
    Word word;
  };

  /// Acquire: `ends_` is there. Pairs with the release in `adopt`.
  int device() const { return device_.load(std::memory_order_acquire); }
  void adopt(int device);
  Status post(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
              const Signal* signal);

  const std::shared_ptr<NetworkTransport> network_;  // regions may outlive this
  std::mutex adopting_;
  std::atomic<int> device_{gpu::host};  // of this worker's memory; set once
  std::unique_ptr<Ends> ends_;          // once there is a device
};

}  // namespace slip
