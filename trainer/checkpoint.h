#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "slipstream/base/word.h"
#include "slipstream/kernels/vector.h"

namespace slip {

/// What a run can go on from. The file is this machine's byte order, with a checksum.
struct Checkpoint {
  Dtype dtype = Dtype::float32;
  std::uint64_t count = 0;  // elements of each vector
  Iteration iteration = 0;  // the next one
  std::uint64_t seed = 0;
  std::vector<std::byte> parameters;
  std::vector<std::byte> velocity;  // empty without momentum
};

/// The file appears at once or not at all. Throws Error(io).
void write_checkpoint(const Checkpoint& checkpoint, const std::string& path);

/// Throws Error(not_found, io, bad_data): one line with the file and what is wrong with it.
Checkpoint read_checkpoint(const std::string& path);

}  // namespace slip
