#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "slipstream/trainer/tasks/digits_internal.h"

namespace slip {
namespace {

using Image = std::array<std::uint8_t, image_pixels>;

Image drawn(std::uint64_t seed, std::uint64_t index) {
  Image image{};
  draw_digit(seed, index, image);
  return image;
}

TEST(Digits, AreAPureFunctionOfSeedAndIndex) {
  EXPECT_EQ(drawn(3, 17), drawn(3, 17));
  EXPECT_NE(drawn(3, 17), drawn(3, 27));
  EXPECT_NE(drawn(3, 17), drawn(4, 17));
}

TEST(Digits, AreTheSameOnEveryMachine) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (std::uint64_t index = 0; index < 200; ++index) {
    for (const std::uint8_t pixel : drawn(1, index)) hash = (hash ^ pixel) * 0x100000001b3u;
  }
  EXPECT_EQ(hash, 8658594758015988088u);
}

TEST(Digits, OverwriteWhatWasInTheImage) {
  Image image{};
  image.fill(255);
  draw_digit(1, 5, image);
  EXPECT_EQ(image, drawn(1, 5));
}

TEST(Digits, HaveEveryClassEquallyOften) {
  const ImageData data = make_digits();
  for (const ImageSet* set : {&data.train, &data.test}) {
    ASSERT_EQ(set->pixels.size(), set->size() * image_pixels);
    std::array<std::size_t, image_classes> count{};
    for (const std::uint8_t label : set->labels) ++count.at(label);
    for (const std::size_t n : count) EXPECT_NEAR(n, set->size() / image_classes, 1);
  }
}

TEST(Digits, TestImagesAreNotTrainingImages) {
  const ImageData data = make_digits();
  const auto image = [](const ImageSet& set, std::size_t i) {
    const auto begin = set.pixels.begin() + static_cast<std::ptrdiff_t>(i * image_pixels);
    return std::vector<std::uint8_t>(begin, begin + image_pixels);
  };
  const auto test = image(data.test, 0);
  for (std::size_t i = 0; i < data.train.size(); ++i) ASSERT_NE(image(data.train, i), test);
}

// Neither noise nor templates: the nearest class mean is right far more often than chance, and
// wrong often enough that there is something to learn.
TEST(Digits, AreARealLearningProblem) {
  const ImageData data = make_digits();
  std::array<std::array<double, image_pixels>, image_classes> means{};
  const double share = image_classes / static_cast<double>(data.train.size());
  for (std::size_t i = 0; i < data.train.size(); ++i) {
    auto& mean = means[data.train.labels[i]];
    for (std::size_t p = 0; p < image_pixels; ++p) {
      mean[p] += share * data.train.pixels[i * image_pixels + p];
    }
  }
  int right = 0;
  for (std::size_t i = 0; i < data.test.size(); ++i) {
    double least = std::numeric_limits<double>::max();
    int nearest = -1;
    for (int c = 0; c < image_classes; ++c) {
      double distance = 0;
      for (std::size_t p = 0; p < image_pixels; ++p) {
        const double d =
            means[static_cast<std::size_t>(c)][p] - data.test.pixels[i * image_pixels + p];
        distance += d * d;
      }
      if (distance < least) {
        least = distance;
        nearest = c;
      }
    }
    right += nearest == data.test.labels[i];
  }
  const double accuracy = right / static_cast<double>(data.test.size());
  EXPECT_GT(accuracy, 0.5);
  EXPECT_LT(accuracy, 0.9);
}

}  // namespace
}  // namespace slip
