#pragma once

#include <chrono>

namespace slip {

/// Lengths and points of time are whole nanoseconds, so that virtual time is exact. A Time counts
/// from its clock's start; a deadline is a Time.
using Duration = std::chrono::nanoseconds;
using Time = std::chrono::nanoseconds;

constexpr Time never = Time::max();

constexpr double to_seconds(Duration d) { return static_cast<double>(d.count()) * 1e-9; }

constexpr Duration from_seconds(double seconds) {
  return Duration(static_cast<Duration::rep>(seconds * 1e9 + (seconds < 0 ? -0.5 : 0.5)));
}

}  // namespace slip
