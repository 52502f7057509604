#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/base/word.h"
#include "slipstream/transport/doorbell.h"

namespace slip {

/// Memory of this worker that its peers may write: zeroed, aligned to a page, freed with the last
/// copy of the handle (peers that still map it keep their mapping). Thread-safe to share.
class Region {
 public:
  Region() = default;
  Region(std::shared_ptr<std::byte> memory, std::size_t bytes, std::string key)
      : memory_(std::move(memory)), bytes_(bytes), key_(std::move(key)) {}

  std::byte* data() const { return memory_.get(); }
  std::size_t bytes() const { return bytes_; }
  /// What a peer needs to attach to it; opaque, a few dozen bytes.
  const std::string& key() const { return key_; }

  /// The word at `offset` (a multiple of 8), as last announced by its writer. Acquire: whatever was
  /// put before the word is visible. Pairs with the transport's release of the word.
  Word word(std::size_t offset) const {
    return std::atomic_ref<Word>(*reinterpret_cast<Word*>(data() + offset))
        .load(std::memory_order_acquire);
  }

 private:
  std::shared_ptr<std::byte> memory_;
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
  /// Set where load and store reach `memory`. Else everything goes through Transport::put.
  std::shared_ptr<const Wakeup> wakeup;

  bool mapped() const { return wakeup != nullptr; }

  bool contains(std::size_t offset, std::size_t count) const {
    return offset <= bytes && count <= bytes - offset;
  }

  /// Store-release of a word into mapped memory, and the bell: what Transport::put_signal does
  /// without a payload, for code that has written its payload by itself.
  void signal_mapped(std::size_t word_offset, Word word) const {
    std::atomic_ref<Word>(*reinterpret_cast<Word*>(memory.get() + word_offset))
        .store(word, std::memory_order_release);
    wakeup->ring(bell);
  }
};

/// The error of a put that would leave its region.
Status out_of_bounds(const RemoteRegion& to, std::size_t offset, std::size_t bytes);

}  // namespace slip
