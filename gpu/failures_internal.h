#pragma once

#include "slipstream/base/error.h"

#pragma GCC visibility push(hidden)

namespace slip::gpu {

/// For work that is enqueued by a function which reports nothing: Stream::status shows the first of
/// these of each GPU, until the process ends. Calls no CUDA. Thread-safe.
void note(const Status& status, int device);
Status noted(int device);

}  // namespace slip::gpu

#pragma GCC visibility pop
