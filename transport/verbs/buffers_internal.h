#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "slipstream/transport/verbs/device_internal.h"

#pragma GCC visibility push(hidden)

namespace slip::verbs {

struct FreeMemory {
  void operator()(std::byte* memory) const;
};
using Memory = std::unique_ptr<std::byte, FreeMemory>;
/// Aligned to a page, not zeroed; null where there is none left.
Memory page_memory(std::size_t bytes);

/// Registered memory from which a device sends.
struct Buffer {
  std::byte* data = nullptr;
  std::uint32_t lkey = 0;
  int size_class = 0;
};

/// Buffers of 2^8, 2^9, ... bytes, kept once they have been made.
class Buffers {
 public:
  explicit Buffers(const Device& device) : device_(device) {}

  /// Of at least `bytes`, up to `largest`; null where no more memory can be had or registered.
  Buffer* take(std::size_t bytes);
  void give_back(Buffer* buffer) {
    free_[static_cast<std::size_t>(buffer->size_class)].push_back(buffer);
  }

  static constexpr std::size_t smallest = 256;
  static constexpr std::size_t largest = std::size_t{1} << 20;

 private:
  static constexpr std::size_t classes = 13;
  struct Slab {
    Memory memory;  // outlives its registration
    Registration registration;
  };
  bool grow(std::size_t size_class);

  const Device& device_;
  std::vector<Slab> slabs_;
  std::deque<Buffer> buffers_;  // which stay where they are
  std::vector<Buffer*> free_[classes];
};

}  // namespace slip::verbs

#pragma GCC visibility pop
