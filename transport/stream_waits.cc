#include "slipstream/transport/stream_waits.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>
#include <utility>

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/words.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t page_bytes = 4096;
/// Later than any word of an incarnation below 2^15.
constexpr Word poisoned = std::numeric_limits<std::int64_t>::max();

}  // namespace

StreamWaits::StreamWaits(int device) : device_(device) {
  if (gpu::can_wait_for_words(device)) return;
  throw Error(Code::not_supported,
              fmt::format("streams of GPU {} cannot wait for words; let the host wait", device));
}

/// A peer that does not know of the abort yet may write the word once more.
StreamWaits::~StreamWaits() {
  release();
  const std::jthread again([this](const std::stop_token& over) {
    for (; !over.stop_requested(); std::this_thread::sleep_for(1ms)) poison();
  });
  (void)gpu::synchronize(device_);
}

Status StreamWaits::wait(const Region& region, std::size_t offset, Word word,
                         const gpu::Stream& stream) {
  std::byte* const at = region.words() + offset;
  std::byte* const page = at - reinterpret_cast<std::uintptr_t>(at) % page_bytes;
  auto* const awaited = reinterpret_cast<Word*>(at);
  {
    const std::lock_guard lock(pinning_);
    if (!pages_.contains(page)) {
      try {
        // Words that a network writes are pinned from the start, and may not be twice.
        const bool is_pinned = gpu::reaches(device_, at);
        pages_[page] = {region, is_pinned ? nullptr : gpu::pin(device_, page, page_bytes)};
      } catch (const Error& error) {
        pages_.erase(page);
        return error.status();
      }
    }
  }
  {
    const std::lock_guard lock(mutex_);
    if (released_) return {};
    if (std::find(awaited_.begin(), awaited_.end(), awaited) == awaited_.end()) {
      awaited_.push_back(awaited);
    }
  }
  // Without the lock: where the queue is full the driver waits, maybe for the release.
  return gpu::wait_for_word(awaited, word, stream);
}

void StreamWaits::release() {
  {
    const std::lock_guard lock(mutex_);
    released_ = true;
  }
  poison();
}

void StreamWaits::poison() {
  const std::lock_guard lock(mutex_);
  for (Word* word : awaited_) {
    std::atomic_ref<Word>(*word).store(poisoned, std::memory_order_release);
  }
}

}  // namespace slip
