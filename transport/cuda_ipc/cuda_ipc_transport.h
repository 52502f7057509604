#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string_view>

#include "slipstream/gpu/stream.h"
#include "slipstream/transport/await_stream.h"
#include "slipstream/transport/shm/shm_transport.h"

namespace slip {

/// Workers of one host as ShmTransport has them, whose regions may also be memory of GPUs: that of
/// peers is mapped (CUDA IPC; threads share it), and their words are in shared memory. A put is a
/// copy on gpu::current_stream by the GPU, and its word a call that follows on the stream: a
/// release store, and the bell. So a word says that everything on the stream before it is complete,
/// and visible to kernels that are launched by whoever has read it.
///
/// A put whose payload is the host's waits for the stream, as does a word behind 256 others that
/// are on their way.
///
/// A worker has memory of one GPU. Between GPUs that cannot reach each other the driver copies by
/// way of the host. Where GPUs do not share their memory, regions are of the host's, where it is
/// said so: the GPU that puts writes it, and the one that it belongs to reads it, where it is.
class CudaIpcTransport final : public ShmTransport {
 public:
  /// What becomes of regions where GPUs do not share their memory.
  enum class WithoutIpc { refused, on_host };

  CudaIpcTransport(std::string_view name, WithoutIpc without_ipc, StreamLimits limits = {});
  ~CudaIpcTransport() override;

  Region allocate(std::size_t bytes, Bell bell, int device) override;
  RemoteRegion attach(int peer, std::string_view key) override;
  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override;
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override;
  bool drained(int peer) override;

 private:
  struct Streams;

  /// Acquire: `streams_` is there. Pairs with the release in `adopt`.
  int device() const { return device_.load(std::memory_order_acquire); }
  /// What is put there follows a stream.
  bool follows(const RemoteRegion& to) const {
    return device() != gpu::host && !(to.device == gpu::host && gpu::detached());
  }
  void adopt(int device);
  Status await_idle(const gpu::Stream& stream) const;
  Status copy(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
              const gpu::Stream& stream) const;

  const WithoutIpc without_ipc_;
  const StreamLimits limits_;
  std::mutex adopting_;
  std::atomic<int> device_{gpu::host};  // of this worker's memory; set once
  std::unique_ptr<Streams> streams_;    // once there is a device
};

}  // namespace slip
