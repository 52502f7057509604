#pragma once

#include <filesystem>

#include "slipstream/trainer/tasks/images_internal.h"

namespace slip {

/// The files of CIFAR-10's binary version in `folder`, data_batch_1.bin to data_batch_5.bin and
/// test_batch.bin, each plain, `.gz` or `.xz`: records of a label 0..9 and three planes of 32x32
/// pixels. Memory grows with what the files hold. Throws Error: not_found, io or bad_data, one line
/// that names the file.
ImageData read_cifar10(const std::filesystem::path& folder);

}  // namespace slip
