#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace slip {

constexpr std::size_t image_side = 28;
constexpr std::size_t image_pixels = image_side * image_side;
constexpr int image_classes = 10;

/// Grey images with their classes. Pixels stay bytes (a quarter of the memory of floats); a
/// mini-batch is converted when it is drawn, which costs microseconds.
struct ImageSet {
  std::vector<std::uint8_t> pixels;  // size() x 28 x 28, row by row, 0 is background
  std::vector<std::uint8_t> labels;  // 0..9

  std::size_t size() const { return labels.size(); }
};

struct ImageData {
  ImageSet train;
  ImageSet test;
};

}  // namespace slip
