#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace slip {

/// Square images, one plane for each channel.
struct ImageShape {
  std::size_t channels;
  std::size_t side;
  constexpr std::size_t pixels() const { return channels * side * side; }
  bool operator==(const ImageShape&) const = default;
};

constexpr ImageShape grey_images{1, 28};    // of digits and mnist
constexpr ImageShape colour_images{3, 32};  // of cifar10
constexpr std::size_t image_side = grey_images.side;
constexpr std::size_t image_pixels = grey_images.pixels();
constexpr int image_classes = 10;

/// Images with their classes. Pixels stay bytes (a quarter of the memory of floats); a mini-batch
/// is converted when it is drawn, which costs microseconds.
struct ImageSet {
  std::vector<std::uint8_t> pixels;  // image by image and plane by plane, row by row
  std::vector<std::uint8_t> labels;  // 0..9

  std::size_t size() const { return labels.size(); }
};

struct ImageData {
  ImageSet train;
  ImageSet test;
  ImageShape shape = grey_images;
};

}  // namespace slip
