#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "slipstream/base/word.h"
#include "slipstream/kernels/vector.h"

namespace slip {

/// What a run can go on from. The file is of this machine's byte order, with a version and a
/// checksum.
struct Checkpoint {
  using Vector = std::vector<std::byte>;

  Dtype dtype = Dtype::float32;
  std::uint64_t count = 0;  // elements of each vector
  Iteration iteration = 0;  // the next one
  std::uint64_t seed = 0;
  Vector parameters = {};
  /// Momentum; empty without. Of the one worker that saved it or, where `workers` is not 0, of each
  /// worker of a world of that size, by rank.
  std::vector<Vector> velocities = {};
  int workers = 0;
};

/// The file appears at once or not at all. Throws Error(io).
void write_checkpoint(const Checkpoint& checkpoint, const std::string& path);

/// Throws Error(not_found, io, bad_data): one line with the file and what is wrong with it.
Checkpoint read_checkpoint(const std::string& path);

}  // namespace slip
