#pragma once

#include <chrono>

namespace slip {

/// Lengths and points of time are whole nanoseconds, so that virtual time is exact. A Time counts
/// from its clock's start; a deadline is a Time.
using Duration = std::chrono::nanoseconds;
/// A point of time, from its clock's start.
using Time = std::chrono::nanoseconds;

/// A deadline that does not come.
constexpr Time never = Time::max();

/// As a floating-point number.
constexpr double to_seconds(Duration d) { return static_cast<double>(d.count()) * 1e-9; }

/// To the nearest nanosecond; beyond a century and a half it is a century and a half, so that sums
/// with times of a run do not overflow.
constexpr Duration from_seconds(double seconds) {
  constexpr double most = 4.6e18;  // half of what a Duration holds
  const double nanoseconds = seconds * 1e9;
  if (nanoseconds >= most) return Duration(static_cast<Duration::rep>(most));
  if (nanoseconds <= -most) return Duration(static_cast<Duration::rep>(-most));
  return Duration(static_cast<Duration::rep>(nanoseconds + (seconds < 0 ? -0.5 : 0.5)));
}

/// `a + b` of times that are not negative, at most `never`.
constexpr Time add(Time a, Duration b) { return b < never - a ? a + b : never; }

}  // namespace slip
