#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#pragma GCC visibility push(hidden)

namespace slip {

/// Memory of this process by its number, so that workers that are threads share addresses and
/// lifetimes. Thread-safe.
class LocalMemory {
 public:
  void add(std::uint64_t serial, const std::shared_ptr<std::byte>& memory) {
    const std::lock_guard lock(mutex_);
    std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
    known_[serial] = memory;
  }
  /// Null where it was freed.
  std::shared_ptr<std::byte> find(std::uint64_t serial) {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(serial);
    return found == known_.end() ? nullptr : found->second.lock();
  }

 private:
  std::mutex mutex_;  // guards known_
  std::unordered_map<std::uint64_t, std::weak_ptr<std::byte>> known_;
};

}  // namespace slip

#pragma GCC visibility pop
