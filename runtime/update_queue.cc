#include "slipstream/runtime/update_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>

#include "slipstream/base/align_internal.h"
#include "slipstream/base/random.h"
#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

const UpdateQueueOptions& checked(const UpdateQueueOptions& options) {
  if (options.depth < 1 || options.chunk_bytes < 1) {
    throw Error(Code::invalid_argument,
                fmt::format("an update queue has at least 1 slot, not {}, and chunks of at least 1 "
                            "byte, not {}",
                            options.depth, options.chunk_bytes));
  }
  return options;
}

std::size_t chunk_count(const UpdateQueueOptions& options) {
  return std::max<std::size_t>(1, (options.bytes + options.chunk_bytes - 1) / options.chunk_bytes);
}
std::size_t header_size(const UpdateQueueOptions& options) {
  return round_up(16 + 8 * chunk_count(options));
}
std::size_t slot_size(const UpdateQueueOptions& options) {
  return header_size(options) + round_up(options.bytes);
}

/// The checksum of some chunks with one more.
std::uint64_t with_chunk(std::uint64_t checksum, std::span<const std::byte> chunk) {
  return mix(checksum ^ kernels::checksum(chunk));
}

}  // namespace

bool UpdateQueueOptions::checksums_by_default() {
  const char* const asked = std::getenv("SLIP_CHECKSUMS");
  if (asked != nullptr && *asked != '\0') return std::string_view(asked) != "0";
#ifdef NDEBUG
  return false;
#else
  return true;
#endif
}

std::size_t UpdateQueue::memory(std::size_t in_neighbours, const UpdateQueueOptions& options) {
  return in_neighbours * static_cast<std::size_t>(options.depth) * slot_size(options);
}

UpdateQueue::UpdateQueue(const World& world, std::string_view name,
                         const Neighbourhood& neighbourhood, const UpdateQueueOptions& options)
    : world_(&world),
      options_(checked(options)),
      in_(neighbourhood.in),
      out_(neighbourhood.out),
      chunks_(chunk_count(options)),
      header_bytes_(header_size(options)),
      slot_bytes_(slot_size(options)),
      slots_(world.allocate(name, memory(in_.size(), options), Bell::worker, options.device)),
      checksums_(out_.size(), 0) {
  for (const Neighbour& edge : out_) {
    receivers_.push_back(world.attach(edge.peer, name));
    const std::size_t needed = memory(static_cast<std::size_t>(edge.index) + 1, options);
    if (receivers_.back().bytes < needed) {
      throw Error(Code::peer_mismatch,
                  fmt::format("'{}': the queue of rank {} is smaller than rank {} expects; do both "
                              "have the same graph, model and max_gap?",
                              name, edge.peer, world.rank()),
                  edge.peer);
    }
  }
}

std::size_t UpdateQueue::chunk_size(std::size_t c) const {
  return std::min(options_.chunk_bytes, options_.bytes - c * options_.chunk_bytes);
}

Status UpdateQueue::enqueue(std::size_t out, Iteration iteration, const std::byte* update) {
  for (std::size_t c = 0; c < chunks_; ++c) {
    const std::byte* chunk = update + c * options_.chunk_bytes;
    if (Status s = enqueue_chunk(out, iteration, c, chunk); !s) return s;
  }
  return {};
}

Status UpdateQueue::enqueue_chunk(std::size_t out, Iteration iteration, std::size_t c,
                                  const std::byte* chunk) {
  Transport& transport = world_->transport();
  const RemoteRegion& receiver = receivers_[out];
  const std::size_t at = slot(static_cast<std::size_t>(out_[out].index), iteration);
  if (options_.checksums && has_headers()) {
    checksums_[out] = with_chunk(c == 0 ? 0 : checksums_[out], {chunk, chunk_size(c)});
  }
  const bool is_last = c + 1 == chunks_;
  if (is_last && has_headers()) {
    const std::uint64_t header[2] = {options_.bytes, checksums_[out]};
    if (Status s = transport.put(receiver, at + length_offset, header, sizeof header); !s) return s;
  }
  const Word word = make_word(world_->incarnation(), iteration);
  if (Status s = transport.put_signal(receiver, at + header_bytes_ + c * options_.chunk_bytes,
                                      chunk, chunk_size(c), at + word_offset(c), word);
      !s) {
    return s;
  }
  if (!is_last) return {};
  world_->counters().updates_sent.add(1);
  world_->counters().bytes_sent.add(options_.bytes);
  return {};
}

int UpdateQueue::size(Iteration iteration) const {
  int count = 0;
  for (std::size_t in = 0; in < in_.size(); ++in) count += arrived(in, iteration);
  return count;
}

Status UpdateQueue::verify(std::size_t in, Iteration iteration) const {
  if (!has_headers()) return {};
  std::uint64_t header[2];
  std::memcpy(header, slots_.data() + slot(in, iteration) + length_offset, sizeof header);
  std::uint64_t expected = 0;
  for (std::size_t c = 0; options_.checksums && c < chunks_; ++c) {
    const std::byte* chunk = update(in, iteration) + c * options_.chunk_bytes;
    expected = with_chunk(expected, {chunk, chunk_size(c)});
  }
  if (header[0] == options_.bytes && header[1] == expected) return {};
  return {Code::bad_data,
          fmt::format("rank {}: the update of iteration {} from rank {} is torn or damaged",
                      world_->rank(), iteration, in_[in].peer),
          in_[in].peer};
}

}  // namespace slip
