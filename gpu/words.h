#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "slipstream/gpu/stream.h"

/// Words in memory of the host for which streams of a GPU wait.
namespace slip::gpu {

/// Whether that GPU's streams can. Throws Error.
bool can_wait_for_words(int device);

/// Pins whole pages of memory that is there already; the last copy of the handle, which does not
/// own the memory, lets them go. Throws Error.
std::shared_ptr<std::byte> pin(int device, std::byte* memory, std::size_t bytes);

/// What is enqueued from now on begins once *word - value, as a signed number, is not negative.
/// `word` is in pinned memory.
Status wait_for_word(const std::uint64_t* word, std::uint64_t value, const Stream& stream);

}  // namespace slip::gpu
