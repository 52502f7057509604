#include "slipstream/runtime/update_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

constexpr std::size_t line = 64;
constexpr std::size_t round_up(std::size_t n) { return (n + line - 1) / line * line; }

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

}  // namespace

bool UpdateQueueOptions::checksums_by_default() {
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
      slots_(world.allocate(name, memory(in_.size(), options), Bell::worker, options.device)) {
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
  Transport& transport = world_->transport();
  const RemoteRegion& receiver = receivers_[out];
  const std::size_t at = slot(static_cast<std::size_t>(out_[out].index), iteration);
  if (has_headers()) {
    const std::uint64_t header[2] = {
        options_.bytes, options_.checksums ? kernels::checksum({update, options_.bytes}) : 0};
    if (Status s = transport.put(receiver, at + length_offset, header, sizeof header); !s) return s;
  }
  const Word word = make_word(world_->incarnation(), iteration);
  for (std::size_t c = 0; c < chunks_; ++c) {
    const std::size_t begin = c * options_.chunk_bytes;
    if (Status s = transport.put_signal(receiver, at + header_bytes_ + begin, update + begin,
                                        chunk_size(c), at + word_offset(c), word);
        !s) {
      return s;
    }
  }
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
  const bool whole = header[0] == options_.bytes &&
                     (!options_.checksums ||
                      header[1] == kernels::checksum({update(in, iteration), options_.bytes}));
  if (whole) return {};
  return {Code::bad_data,
          fmt::format("rank {}: the update of iteration {} from rank {} is torn or damaged",
                      world_->rank(), iteration, in_[in].peer),
          in_[in].peer};
}

}  // namespace slip
