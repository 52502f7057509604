#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "slipstream/trainer/axis_internal.h"

namespace slip {
namespace {

/// The smallest of 1, 2, 5 times a power of ten that is not below `step`.
double round_step(double step) {
  const double power = std::pow(10, std::floor(std::log10(step)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

std::string superscript(int number) {
  static constexpr const char* digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = number < 0 ? "⁻" : "";
  for (const char digit : std::to_string(std::abs(number))) text += digits[digit - '0'];
  return text;
}

}  // namespace

Axis Axis::linear(double low, double high, int wanted_ticks) {
  if (!(high > low)) {
    const double room = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= low == 0 ? 0 : room;
    high += room;
  }
  Axis axis;
  const double step = round_step((high - low) / wanted_ticks);
  axis.low_ = low;
  axis.high_ = high;
  axis.decimals_ = std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 12);
  // Counted, so that steps too small for the numbers' precision still end.
  const double first = std::ceil(low / step - 1e-9);
  const double last = std::floor(high / step + 1e-9);
  for (int k = 0; first + k <= last && k <= 4 * wanted_ticks; ++k) {
    axis.ticks_.push_back((first + k) * step);
  }
  return axis;
}

Axis Axis::rounded(double low, double high, int wanted_ticks) {
  Axis axis = linear(low, high, wanted_ticks);
  if (axis.ticks_.size() < 2) return axis;
  const double step = axis.ticks_[1] - axis.ticks_[0];
  if (axis.ticks_.front() > axis.low_ + 1e-6 * step) {
    axis.ticks_.insert(axis.ticks_.begin(), axis.ticks_.front() - step);
  }
  if (axis.ticks_.back() < axis.high_ - 1e-6 * step)
    axis.ticks_.push_back(axis.ticks_.back() + step);
  axis.low_ = axis.ticks_.front();
  axis.high_ = axis.ticks_.back();
  return axis;
}

Axis Axis::logarithmic(double low, double high) {
  Axis axis;
  axis.logarithmic_ = true;
  axis.low_ = std::pow(10, std::floor(std::log10(low)));
  axis.high_ = std::pow(10, std::max(std::ceil(std::log10(high)), std::log10(axis.low_) + 1));
  const int first = static_cast<int>(std::lround(std::log10(axis.low_)));
  const int last = static_cast<int>(std::lround(std::log10(axis.high_)));
  const int stride = 1 + (last - first) / 8;
  for (int power = first; power <= last; power += stride) {
    axis.ticks_.push_back(std::pow(10, power));
  }
  return axis;
}

double Axis::position(double value) const {
  const double share = logarithmic_
                           ? std::log10(std::max(value, low_) / low_) / std::log10(high_ / low_)
                           : (value - low_) / (high_ - low_);
  return std::clamp(share, 0.0, 1.0);
}

std::string Axis::label(double tick) const {
  if (!logarithmic_) return fmt::format("{:.{}f}", tick == 0 ? 0 : tick, decimals_);
  const int power = static_cast<int>(std::lround(std::log10(tick)));
  if (power >= -3 && power <= 3) return fmt::format("{:.{}f}", tick, std::max(0, -power));
  return "10" + superscript(power);
}

}  // namespace slip
