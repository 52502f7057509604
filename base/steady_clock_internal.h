#pragma once

#include <chrono>

#include "slipstream/base/time.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// Now, by this machine's steady clock.
inline Time steady_now() { return std::chrono::steady_clock::now().time_since_epoch(); }

}  // namespace slip

#pragma GCC visibility pop
