#pragma once

#include <chrono>

#include "slipstream/base/time.h"

namespace slip {

/// Real or virtual time since the world began.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;
  virtual bool is_virtual() const { return false; }
};

/// The system's clock that only goes forward, since the object was made.
class RealClock final : public Clock {
 public:
  Time now() const override { return std::chrono::steady_clock::now() - start_; }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace slip
