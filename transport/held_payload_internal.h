#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/gpu/device.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// A copy of what is put, to be put later.
class HeldPayload {
 public:
  /// `device`: whose memory holds it, and which reads `from`. It waits until a GPU has done what is
  /// enqueued.
  HeldPayload(int device, const void* from, std::size_t bytes) : bytes_(bytes) {
    const auto* source = static_cast<const std::byte*>(from);
    if (device == gpu::host) {
      host_.assign(source, source + bytes);
    } else if (bytes > 0) {
      stream_.emplace(gpu::current_stream(device));
      gpu_ = gpu::allocate(device, bytes);
      transfer(gpu_.get(), from, bytes);
    }
  }

  const std::byte* data() const { return gpu_ ? gpu_.get() : host_.data(); }
  std::size_t bytes() const { return bytes_; }

  void damage(std::size_t at) {
    constexpr std::byte bit{0x40};
    if (!gpu_) {
      host_[at] ^= bit;
      return;
    }
    std::byte value{};
    transfer(&value, gpu_.get() + at, 1);
    value ^= bit;
    transfer(gpu_.get() + at, &value, 1);
  }

 private:
  void transfer(void* to, const void* from, std::size_t bytes) const {
    gpu::copy(to, from, bytes, *stream_).throw_if_failed();
    stream_->synchronize().throw_if_failed();
  }

  std::size_t bytes_;
  std::vector<std::byte> host_;
  std::shared_ptr<std::byte> gpu_;
  std::optional<gpu::Stream> stream_;  // of copies from and to it
};

}  // namespace slip

#pragma GCC visibility pop
