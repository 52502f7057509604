#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/digits_internal.h"

namespace slip {
namespace {

constexpr std::size_t train_count = 8192;
constexpr std::size_t test_count = 2048;
constexpr std::uint64_t digits_seed = 1;

struct Point {
  double x, y;
};

/// One pen stroke for each digit, on a sheet 20 wide and 28 high, y downwards.
// clang-format off
const std::array<std::vector<Point>, image_classes> glyphs{{
    {{10, 0}, {15, 2}, {18, 7}, {19, 14}, {18, 21}, {15, 26}, {10, 28}, {5, 26}, {2, 21}, {1, 14},
     {2, 7}, {5, 2}, {10, 0}},
    {{5, 6}, {11, 0}, {11, 28}},
    {{2, 7}, {4, 2}, {10, 0}, {16, 2}, {18, 7}, {17, 12}, {12, 18}, {2, 28}, {19, 28}},
    {{2, 3}, {8, 0}, {14, 1}, {17, 6}, {15, 11}, {9, 13}, {16, 15}, {19, 20}, {16, 26}, {9, 28},
     {2, 25}},
    {{14, 28}, {14, 0}, {1, 19}, {19, 19}},
    {{17, 0}, {4, 0}, {3, 12}, {10, 10}, {16, 13}, {18, 19}, {15, 26}, {8, 28}, {2, 25}},
    {{15, 1}, {8, 6}, {3, 14}, {2, 21}, {5, 27}, {11, 28}, {17, 25}, {18, 19}, {14, 14}, {8, 14},
     {3, 19}},
    {{2, 0}, {18, 0}, {8, 28}},
    {{10, 13}, {4, 10}, {3, 5}, {6, 1}, {10, 0}, {14, 1}, {17, 5}, {16, 10}, {10, 13}, {3, 18},
     {2, 23}, {5, 27}, {10, 28}, {15, 27}, {18, 23}, {17, 18}, {10, 13}},
    {{17, 9}, {13, 14}, {7, 14}, {3, 9}, {4, 3}, {9, 0}, {15, 2}, {17, 9}, {16, 18}, {11, 28}},
}};
// clang-format on

double squared_distance(Point p, Point a, Point b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double length = dx * dx + dy * dy;
  const double along = length > 0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / length : 0;
  const double t = std::clamp(along, 0.0, 1.0);
  const double ex = a.x + t * dx - p.x, ey = a.y + t * dy - p.y;
  return ex * ex + ey * ey;
}

/// The ink of one image, 0..1, before noise.
class Sheet {
 public:
  explicit Sheet(double pen_radius) : radius_(pen_radius) {}

  void line(Point a, Point b) {
    const double reach = radius_ + 0.5;
    const auto [left, right] = pixels_near(std::min(a.x, b.x) - reach, std::max(a.x, b.x) + reach);
    const auto [top, bottom] = pixels_near(std::min(a.y, b.y) - reach, std::max(a.y, b.y) + reach);
    for (int y = top; y < bottom; ++y) {
      for (int x = left; x < right; ++x) {
        const double squared = squared_distance({x + 0.5, y + 0.5}, a, b);
        if (squared >= reach * reach) continue;
        double& ink = ink_[static_cast<std::size_t>(y) * image_side + static_cast<std::size_t>(x)];
        ink = std::max(ink, std::min(1.0, reach - std::sqrt(squared)));
      }
    }
  }

  std::span<const double, image_pixels> ink() const { return ink_; }

 private:
  static std::pair<int, int> pixels_near(double low, double high) {
    constexpr double side = image_side;
    return {static_cast<int>(std::clamp(low, 0.0, side)),
            static_cast<int>(std::clamp(high + 1, 0.0, side))};
  }

  double radius_;
  std::array<double, image_pixels> ink_{};
};

/// Rotation, slant, size and place of one digit.
class Placement {
 public:
  explicit Placement(Random& random) {
    // A rotation by 2 atan(t) without sin and cos.
    const double t = random.uniform(-0.1, 0.1);
    const double cosine = (1 - t * t) / (1 + t * t), sine = 2 * t / (1 + t * t);
    const double width = random.uniform(0.55, 0.78), height = random.uniform(0.6, 0.8);
    const double slant = random.uniform(-0.2, 0.2);
    xx_ = cosine * width;
    xy_ = cosine * slant - sine * height;
    yx_ = sine * width;
    yy_ = sine * slant + cosine * height;
    middle_ = {random.uniform(11.5, 16.5), random.uniform(11.5, 16.5)};
  }

  Point operator()(Point p) const {
    const double x = p.x - 10, y = p.y - 14;
    return {middle_.x + xx_ * x + xy_ * y, middle_.y + yx_ * x + yy_ * y};
  }

 private:
  double xx_, xy_, yx_, yy_;
  Point middle_;
};

/// Mean 0, standard deviation 1: the sum of four uniforms from one draw.
double noise(Random& random) {
  const std::uint64_t bits = random();
  const auto sum = static_cast<double>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                       (bits >> 32 & 0xffff) + (bits >> 48));
  return (sum - 2 * 65535) * (1 / 37837.2);
}

ImageSet draw(std::uint64_t seed, std::uint64_t first, std::size_t count) {
  ImageSet set{std::vector<std::uint8_t>(count * image_pixels), std::vector<std::uint8_t>(count)};
  for (std::size_t i = 0; i < count; ++i) {
    set.labels[i] = static_cast<std::uint8_t>((first + i) % image_classes);
    draw_digit(seed, first + i,
               std::span<std::uint8_t, image_pixels>(&set.pixels[i * image_pixels], image_pixels));
  }
  return set;
}

}  // namespace

void draw_digit(std::uint64_t seed, std::uint64_t index,
                std::span<std::uint8_t, image_pixels> pixels) {
  Random random(key({seed, index}));
  const Placement place(random);
  Sheet sheet(random.uniform(0.9, 1.8));
  const std::vector<Point>& glyph = glyphs[index % image_classes];
  Point last{};
  for (std::size_t i = 0; i < glyph.size(); ++i) {
    const Point next =
        place({glyph[i].x + random.uniform(-1.2, 1.2), glyph[i].y + random.uniform(-1.2, 1.2)});
    if (i > 0) sheet.line(last, next);
    last = next;
  }
  // The stray stroke.
  const Point from{random.uniform(0, 28), random.uniform(0, 28)};
  sheet.line(from, {from.x + random.uniform(-6, 6), from.y + random.uniform(-6, 6)});

  const double ink = random.uniform(150, 255);
  const double noise_level = random.uniform(5, 25);
  for (std::size_t i = 0; i < image_pixels; ++i) {
    const double value = sheet.ink()[i] * ink + noise_level * noise(random);
    pixels[i] = static_cast<std::uint8_t>(std::clamp(value, 0.0, 255.0));
  }
}

ImageData make_digits() {
  return {draw(digits_seed, 0, train_count), draw(digits_seed, train_count, test_count)};
}

}  // namespace slip
