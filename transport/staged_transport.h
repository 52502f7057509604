#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "slipstream/transport/await_stream.h"
#include "slipstream/transport/network_transport.h"

namespace slip {

/// Memory of GPUs over a network, by way of pinned memory of the host where the network knows none.
///
/// Where it receives, peers put into the GPU's memory if the network's devices can write it, and
/// what they have written is flushed before its word is stored. Else a region has pinned memory of
/// the same size, into which peers put; what has come is copied from there to where it belongs, on
/// one stream for all regions, and words follow on it.
/// Where it sends, a put follows what is enqueued on gpu::current_stream. Out of a region that the
/// network's devices can read it is posted from where it is. All else is copied into pinned pieces,
/// each of which is posted when it is full, while the next is copied; by whoever drives. While all
/// are full a put waits for the network, which it drives, and the stream; where its payload is the
/// host's it waits for the stream, always. A worker has memory of one GPU.
class StagedTransport final : public NetworkTransport {
 public:
  explicit StagedTransport(std::unique_ptr<NetworkTransport> network, StreamLimits limits = {});
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
  void progress() override;
  void attend() override { network_->attend(); }
  void drive() override;
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

  /// Acquire: `ends_` is there. Pairs with the release in `adopt`.
  int device() const { return device_.load(std::memory_order_acquire); }
  /// What is put there follows a stream.
  bool follows(const RemoteRegion& to) const {
    return device() != gpu::host && !(to.device == gpu::host && gpu::detached());
  }
  void adopt(int device);

  const std::shared_ptr<NetworkTransport> network_;  // regions may outlive this
  const StreamLimits limits_;
  std::mutex adopting_;
  std::atomic<int> device_{gpu::host};  // of this worker's memory; set once
  std::unique_ptr<Ends> ends_;          // once there is a device
};

}  // namespace slip
