#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/transport/shm/segment.h"
#include "slipstream/transport/transport.h"

namespace slip {

/// Workers of one host: threads of one process or processes that map each other's segments. A put
/// is a copy by the sender's processor, in order, and a word is a release store, so a put has
/// taken effect when the call returns.
class ShmTransport : public Transport {
 public:
  /// `name` is what reports say: "threads", "shm" or "cuda_ipc".
  explicit ShmTransport(std::string_view name);
  ~ShmTransport() override;

  std::string_view name() const override;
  Region allocate(std::size_t bytes, Bell bell, int device) override;
  RemoteRegion attach(int peer, std::string_view key) override;
  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override;
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override;
  bool copies_at_post() const override { return true; }
  bool drained(int peer) override;
  int progress_fd() const override;
  void arm() override;
  void progress() override;

  /// What this worker sleeps on; rung by peers, and by the world when it aborts.
  std::shared_ptr<Doorbell> doorbell() const;

 protected:
  /// Memory of which only words are used, wherever: it takes no more than their pages.
  Region allocate_words(std::size_t bytes, Bell bell);

 private:
  Region publish(const shm::Segment& segment, Bell bell) const;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace slip
