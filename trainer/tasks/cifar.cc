#include <fmt/format.h>

#include <array>
#include <span>
#include <string>

#include "slipstream/trainer/tasks/cifar_internal.h"
#include "slipstream/trainer/tasks/unpacked_file_internal.h"

namespace slip {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t record = 1 + colour_images.pixels();
constexpr std::size_t most_records = 1'000'000;

void append(ImageSet& set, const fs::path& folder, const std::string& name) {
  const fs::path file =
      find_packed(folder, name, "data_batch_1.bin to data_batch_5.bin and test_batch.bin");
  UnpackedFile unpacked(file);
  std::array<std::uint8_t, record> image{};
  for (std::size_t number = 0;; ++number) {
    const std::size_t got = unpacked.read(image);
    if (got == 0 && number > 0) return;
    if (got < record) {
      refuse_file(file,
                  fmt::format("truncated: its image {} has {} bytes of {}", number, got, record));
    }
    if (image[0] >= image_classes) {
      refuse_file(
          file, fmt::format("its image {} has the label {}; allowed are 0 to 9", number, image[0]));
    }
    if (number == most_records) {
      refuse_file(
          file, fmt::format("it holds more than {} images, the most that are read", most_records));
    }
    set.labels.push_back(image[0]);
    set.pixels.insert(set.pixels.end(), image.begin() + 1, image.end());
  }
}

}  // namespace

ImageData read_cifar10(const fs::path& folder) {
  ImageData data{{}, {}, colour_images};
  for (int batch = 1; batch <= 5; ++batch) {
    append(data.train, folder, fmt::format("data_batch_{}.bin", batch));
  }
  append(data.test, folder, "test_batch.bin");
  return data;
}

}  // namespace slip
