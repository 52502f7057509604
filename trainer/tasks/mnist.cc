#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "slipstream/trainer/tasks/idx_internal.h"
#include "slipstream/trainer/tasks/unpacked_file_internal.h"

namespace slip {
namespace {

namespace fs = std::filesystem;

fs::path find(const fs::path& folder, const std::string& name) {
  return find_packed(folder, name, "the four IDX files");
}

ImageSet read_set(const fs::path& folder, const std::string& name) {
  const fs::path image_file = find(folder, name + "-images-idx3-ubyte");
  const fs::path label_file = find(folder, name + "-labels-idx1-ubyte");
  IdxArray images = read_idx(image_file, 3);
  IdxArray labels = read_idx(label_file, 1);
  if (images.sizes[1] != image_side || images.sizes[2] != image_side) {
    refuse_file(image_file, fmt::format("its images are {}x{}; the models take {}x{}",
                                        images.sizes[1], images.sizes[2], image_side, image_side));
  }
  if (images.sizes[0] != labels.sizes[0] || labels.sizes[0] == 0) {
    refuse_file(label_file,
                fmt::format("it holds {} labels for {} images", labels.sizes[0], images.sizes[0]));
  }
  const auto largest = std::ranges::max(labels.bytes);
  if (largest >= image_classes) {
    refuse_file(label_file, fmt::format("it holds the label {}; allowed are 0 to 9", largest));
  }
  return {std::move(images.bytes), std::move(labels.bytes)};
}

}  // namespace

ImageData read_mnist(const fs::path& folder) {
  return {read_set(folder, "train"), read_set(folder, "t10k")};
}

}  // namespace slip
