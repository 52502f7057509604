#pragma once

#include <string>
#include <vector>

#pragma GCC visibility push(hidden)

namespace slip {

/// One axis of a plot: what it spans, linear or logarithmic, and where its round ticks stand.
class Axis {
 public:
  /// Covers low .. high; widened where they are equal.
  static Axis linear(double low, double high, int wanted_ticks);
  /// The same, widened to begin and end at a tick.
  static Axis rounded(double low, double high, int wanted_ticks);
  /// Covers low .. high by powers of ten, low > 0.
  static Axis logarithmic(double low, double high);

  double low() const { return low_; }
  double high() const { return high_; }
  const std::vector<double>& ticks() const { return ticks_; }

  /// 0 at low, 1 at high; held to that range.
  double position(double value) const;
  std::string label(double tick) const;

 private:
  double low_ = 0;
  double high_ = 1;
  bool logarithmic_ = false;
  int decimals_ = 0;
  std::vector<double> ticks_;
};

}  // namespace slip

#pragma GCC visibility pop
