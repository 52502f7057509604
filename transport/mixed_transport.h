#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "slipstream/transport/network_transport.h"

namespace slip {

/// Shared memory within this host, and a network to other hosts: what each pair of workers takes is
/// known when they meet. Regions are of shared memory that the network may write, too.
class MixedTransport final : public Transport {
 public:
  /// `is_near(peer)`: shared memory reaches it. Both ring the same doorbell.
  MixedTransport(std::unique_ptr<Transport> near, std::unique_ptr<NetworkTransport> far,
                 std::function<bool(int peer)> is_near);
  ~MixedTransport() override;

  std::string_view name() const override { return name_; }
  Region allocate(std::size_t bytes, Bell bell, int device) override;
  RemoteRegion attach(int peer, std::string_view key) override;
  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override {
    return of(to).put(to, offset, from, bytes);
  }
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override {
    return of(to).put_signal(to, offset, from, bytes, word_offset, word);
  }
  bool copies_at_post() const override { return false; }
  bool drained(int peer) override {
    return is_near_(peer) ? near_->drained(peer) : far_->drained(peer);
  }
  int progress_fd() const override { return poll_fd_; }
  void arm() override;
  void progress() override;
  void drive() override { far_->drive(); }
  void rest() override { far_->rest(); }

 private:
  Transport& of(const RemoteRegion& region) const {
    return region.wakeup ? *near_ : static_cast<Transport&>(*far_);
  }

  const std::string name_;  // "shm+ucx"
  const std::unique_ptr<Transport> near_;
  const std::unique_ptr<NetworkTransport> far_;
  const std::function<bool(int peer)> is_near_;
  int poll_fd_ = -1;  // of both
};

}  // namespace slip
