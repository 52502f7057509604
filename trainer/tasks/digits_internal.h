#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "slipstream/trainer/tasks/images_internal.h"

namespace slip {

/// Draws digit `index % 10` into `pixels`: pen strokes under a random affine map, with a random
/// pen, a stray stroke and noise. A pure function of (seed, index), the same on every machine: only
/// operations that IEEE 754 rounds exactly.
void draw_digit(std::uint64_t seed, std::uint64_t index,
                std::span<std::uint8_t, image_pixels> pixels);

/// The `digits` task's images: 8,192 to learn from, 2,048 others to test on.
ImageData make_digits();

}  // namespace slip
