#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/word.h"
#include "slipstream/runtime/neighbourhood.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// How an update queue is laid out; the same at all workers.
struct UpdateQueueOptions {
  std::size_t bytes = 0;  // of one update
  int depth = 1;
  std::size_t chunk_bytes = std::size_t{2} << 20;
  /// Of every update, to detect torn and damaged ones; on where the library was built for
  /// debugging, and by SLIP_CHECKSUMS=1 or 0 at all workers.
  bool checksums = checksums_by_default();

  /// Whose memory updates are in, here and at all workers: of what is enqueued, and of `update`. On
  /// a GPU there are no checksums.
  int device = gpu::host;

  static bool checksums_by_default();
};

/// The update queue of Hop (ASPLOS'19, section 4: enqueue, dequeue, size) on one-sided writes: a
/// ring of `depth` slots per in-neighbour in the receiver's memory. The update of iteration k goes
/// to slot `k mod depth`, in chunks, each announced by a word.
///
/// Tokens are its flow control: with max_gap tokens, depth max_gap + 1 means that a sender never
/// overwrites what its receiver may still read (max_gap + staleness + 1 with bounded staleness).
class UpdateQueue {
 public:
  /// Made by all workers of the graph with the same name and options; waits for the neighbours.
  UpdateQueue(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
              const UpdateQueueOptions& options);

  /// Bytes of shared memory, or of the GPU's, that the queue of a worker with that many
  /// in-neighbours takes.
  static std::size_t memory(std::size_t in_neighbours, const UpdateQueueOptions& options);

  // ---- As a sender; `out` indexes Neighbourhood::out.

  /// Writes the update of `iteration` into the receiver's queue. Never blocks: the tokens say that
  /// there is room.
  Status enqueue(std::size_t out, Iteration iteration, const std::byte* update);
  /// The same chunk by chunk, in their order, each from wherever it was made.
  Status enqueue_chunk(std::size_t out, Iteration iteration, std::size_t c, const std::byte* chunk);

  // ---- As the receiver; `in` indexes Neighbourhood::in.

  std::size_t chunks() const { return chunks_; }
  /// Bytes of chunk `c`, which begins at c * chunk_bytes.
  std::size_t chunk_size(std::size_t c) const;

  /// True if all of in-neighbour `in`'s update of that iteration is here.
  bool arrived(std::size_t in, Iteration iteration) const {
    return chunk_arrived(in, iteration, chunks_ - 1);
  }
  /// True if its chunks up to and including `chunk` are here.
  bool chunk_arrived(std::size_t in, Iteration iteration, std::size_t chunk) const {
    const Word word = slots_.word(slot(in, iteration) + word_offset(chunk));
    return word != 0 && iteration_of(word) == iteration;
  }
  /// The iteration of the update that is here in the slot that `iteration` would have, if any is.
  std::optional<Iteration> held(std::size_t in, Iteration iteration) const {
    const Word word = slots_.word(slot(in, iteration) + word_offset(chunks_ - 1));
    return word != 0 ? std::optional(iteration_of(word)) : std::nullopt;
  }
  /// How many updates of that iteration are here (the paper's size(iter)).
  int size(Iteration iteration) const;

  /// The update itself, valid until the token of the next use of its slot is given.
  const std::byte* update(std::size_t in, Iteration iteration) const {
    return slots_.data() + slot(in, iteration) + header_bytes_;
  }

  /// Length and, where checksums are on, contents are what the sender sent. Else bad_data: a torn
  /// or damaged update. For updates that have arrived.
  Status verify(std::size_t in, Iteration iteration) const;

 private:
  static constexpr std::size_t length_offset = 0;  // and behind it the checksum of all chunks
  bool has_headers() const { return options_.bytes > 0 && options_.device == gpu::host; }
  static std::size_t word_offset(std::size_t chunk) { return 16 + 8 * chunk; }

  std::size_t slot(std::size_t in, Iteration iteration) const {
    const auto depth = static_cast<std::size_t>(options_.depth);
    return (in * depth + iteration % depth) * slot_bytes_;
  }

  const World* world_;
  UpdateQueueOptions options_;
  std::vector<Neighbour> in_;
  std::vector<Neighbour> out_;
  std::size_t chunks_;
  std::size_t header_bytes_;
  std::size_t slot_bytes_;
  Region slots_;
  std::vector<RemoteRegion> receivers_;
  std::vector<std::uint64_t> checksums_;  // by receiver: of the chunks that it was sent
};

}  // namespace slip
