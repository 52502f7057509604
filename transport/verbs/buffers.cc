#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

#include "slipstream/base/align_internal.h"
#include "slipstream/transport/verbs/buffers_internal.h"

namespace slip::verbs {
namespace {

/// Small buffers are registered together.
constexpr std::size_t slab_bytes = std::size_t{64} << 10;

}  // namespace

void FreeMemory::operator()(std::byte* memory) const { std::free(memory); }

Memory page_memory(std::size_t bytes) {
  constexpr std::size_t page = 4096;
  return Memory(static_cast<std::byte*>(std::aligned_alloc(page, round_up(bytes, page))));
}

Buffer* Buffers::take(std::size_t bytes) {
  const auto size_class =
      static_cast<std::size_t>(std::bit_width((std::max(bytes, smallest) - 1) / smallest));
  std::vector<Buffer*>& free = free_[size_class];
  if (free.empty() && !grow(size_class)) return nullptr;
  Buffer* const buffer = free.back();
  free.pop_back();
  return buffer;
}

bool Buffers::grow(std::size_t size_class) {
  const std::size_t each = smallest << size_class;
  const std::size_t bytes = std::max(slab_bytes, each);
  Slab slab{page_memory(bytes), nullptr};
  if (!slab.memory) return false;
  slab.registration = device_.try_register(slab.memory.get(), bytes);
  if (!slab.registration) return false;
  for (std::size_t at = 0; at < bytes; at += each) {
    buffers_.push_back(
        {slab.memory.get() + at, slab.registration->lkey, static_cast<int>(size_class)});
    free_[size_class].push_back(&buffers_.back());
  }
  slabs_.push_back(std::move(slab));
  return true;
}

}  // namespace slip::verbs
