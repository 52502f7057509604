#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/base/word.h"
#include "slipstream/gpu/device.h"
#include "slipstream/transport/doorbell.h"

namespace slip {

/// Memory of this worker that its peers may write: zeroed, aligned to a page, freed with the last
/// copy of the handle (peers that still map it keep their mapping). Thread-safe to share.
///
/// It may be a GPU's. Its words then are in memory of the host with the same offsets, where nothing
/// else is, and what takes up no memory there but for the pages of words.
class Region {
 public:
  Region() = default;
  Region(std::shared_ptr<std::byte> memory, std::size_t bytes, std::string key)
      : memory_(std::move(memory)), words_(memory_.get()), bytes_(bytes), key_(std::move(key)) {}
  /// Memory of a GPU, which keeps `words` alive.
  Region(int device, std::shared_ptr<std::byte> memory, std::byte* words, std::size_t bytes,
         std::string key)
      : device_(device),
        memory_(std::move(memory)),
        words_(words),
        bytes_(bytes),
        key_(std::move(key)) {}

  /// The GPU that it belongs to, or gpu::host.
  int device() const { return device_; }
  /// Of a GPU's memory: for kernels and copies only.
  std::byte* data() const { return memory_.get(); }
  /// Where its words are, in memory of the host; of the host's memory data().
  std::byte* words() const { return words_; }
  std::size_t bytes() const { return bytes_; }
  /// What a peer needs to attach to it; opaque, a few dozen bytes.
  const std::string& key() const { return key_; }

  /// The word at `offset` (a multiple of 8), as last announced by its writer. Acquire: whatever was
  /// put before the word is visible. Pairs with the transport's release of the word.
  Word word(std::size_t offset) const {
    return std::atomic_ref<Word>(*reinterpret_cast<Word*>(words_ + offset))
        .load(std::memory_order_acquire);
  }

 private:
  int device_ = gpu::host;
  std::shared_ptr<std::byte> memory_;
  std::byte* words_ = nullptr;
  std::size_t bytes_ = 0;
  std::string key_;
};

/// How to wake the owner of mapped memory.
struct Wakeup {
  std::shared_ptr<Doorbell> doorbell;
  int progress_fd = -1;  // one byte written here wakes its progress thread

  void ring(Bell bell) const {
    if (must_wake(*doorbell, bell)) [[unlikely]]
      wake(bell);
  }
  void wake(Bell bell) const;
};

/// The handle by which this worker writes to a peer's region. Copies share what it refers to.
struct RemoteRegion {
  int peer = -1;
  std::size_t bytes = 0;
  Bell bell = Bell::worker;
  /// The mapping, or the backend's own handle; keeps it alive.
  std::shared_ptr<std::byte> memory;
  /// How the owner is woken, where it is on this host and nothing comes between.
  std::shared_ptr<const Wakeup> wakeup;
  /// The owner's GPU, as the owner numbers it, or gpu::host; and where load and store reach the
  /// words of its memory, if they do.
  int device = gpu::host;
  std::byte* words = nullptr;
  /// Of a GPU that this worker's does not reach, but by copies that go by way of the host.
  bool detour = false;

  /// Load and store reach `memory`, those of kernels where it is a GPU's. Else everything goes
  /// through Transport::put.
  bool mapped() const { return wakeup != nullptr && !detour; }

  bool contains(std::size_t offset, std::size_t count) const {
    return offset <= bytes && count <= bytes - offset;
  }

  /// Store-release of a word into mapped memory, and the bell: what Transport::put_signal does
  /// without a payload, for code that has written its payload by itself. Not for a GPU's.
  void signal_mapped(std::size_t word_offset, Word word) const {
    std::atomic_ref<Word>(*reinterpret_cast<Word*>(memory.get() + word_offset))
        .store(word, std::memory_order_release);
    wakeup->ring(bell);
  }
};

/// The error of a put that would leave its region.
Status out_of_bounds(const RemoteRegion& to, std::size_t offset, std::size_t bytes);

/// That a put into a GPU's region takes its payload from memory of `device`; else the error.
Status check_source(const RemoteRegion& to, const void* from, int device);

/// Throws Error(not_supported) unless `device` is gpu::host: for transports without memory of GPUs.
void require_host(int device, std::string_view transport);

}  // namespace slip
