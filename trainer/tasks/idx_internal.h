#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "slipstream/trainer/tasks/images_internal.h"

namespace slip {

/// An IDX file of bytes (the format of MNIST): its sizes and its elements in row-major order.
struct IdxArray {
  std::vector<std::uint32_t> sizes;
  std::vector<std::uint8_t> bytes;
};

/// Reads a plain, gzip or xz file, told apart by its first bytes, that must hold `dimensions`
/// sizes. Memory grows with what the file really holds, never with what its header claims.
/// Throws Error: not_found, io (cannot be opened) or bad_data (wrong magic, truncated, too long,
/// damaged), one line that names the file.
IdxArray read_idx(const std::filesystem::path& file, std::uint8_t dimensions);

/// The four standard files of MNIST or Fashion-MNIST in `folder`, each plain, `.gz` or `.xz`;
/// checks that images and labels match, that images are 28x28 and labels 0..9. Throws the same,
/// and not_found.
ImageData read_mnist(const std::filesystem::path& folder);

}  // namespace slip
