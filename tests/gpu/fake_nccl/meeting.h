#pragma once

#include <nccl.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

/// Memory that the members of a communicator share.
namespace fake_nccl {

constexpr int most_ranks = 16;
constexpr std::size_t chunk_bytes = std::size_t{64} << 10;

struct Meeting {
  std::atomic<int> joined;
  std::atomic<int> left;
  int devices[most_ranks];  // each written by its rank before it joins
  std::atomic<std::uint64_t> steps[most_ranks];
  alignas(64) std::byte chunks[most_ranks][chunk_bytes];
};

/// A new one's id; its memory is kept until this process ends. False: there is none.
bool make_meeting(ncclUniqueId* id);

/// Null: there is none of that id (any more).
std::shared_ptr<Meeting> open_meeting(const ncclUniqueId& id);

}  // namespace fake_nccl
