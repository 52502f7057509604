#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace slip::shm {

/// How another process of this host finds a segment: the memory file's descriptor in its owner.
/// Nothing has a name in a file system, so nothing is left behind whatever dies.
struct SegmentKey {
  std::uint64_t host = 0;  // host_identity() of the owner
  std::int64_t pid = 0;
  std::int32_t fd = -1;
  std::uint64_t bytes = 0;
  std::uint64_t serial = 0;  // unique in the owner's process
  std::uint64_t file = 0;    // the memory file's inode: the descriptor may since be another file's
};

/// Mapped memory, and how others find it.
struct Segment {
  std::shared_ptr<std::byte> memory;
  SegmentKey key;
};

/// The same for all processes that can map each other's segments: one boot of one kernel, one
/// process-id namespace.
std::uint64_t host_identity();

/// Whether memory is taken at once, or page by page as it is touched.
enum class Backing { reserved, sparse };

/// Zeroed memory; reserved now: Error(out_of_memory) says how much was asked for and what there is.
Segment create_segment(std::size_t bytes, Backing backing = Backing::reserved);

/// Maps a segment of this or another process; the owner's own memory where it is this process.
/// `rank` is for messages.
std::shared_ptr<std::byte> map_segment(const SegmentKey& key, int rank);

/// Memory that could be had now without swapping: the least of MemAvailable and what the control
/// group leaves.
std::size_t available_memory();

}  // namespace slip::shm
