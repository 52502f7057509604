#pragma once

#include <chrono>
#include <functional>

#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/base/time.h"
#include "slipstream/gpu/stream.h"

namespace slip {

/// How long a put may wait for what is enqueued ahead of it on a stream of a GPU.
struct StreamLimits {
  Duration timeout = std::chrono::minutes(10);
  /// Why nobody needs the put any more; ok: somebody does. Null: always.
  std::function<Status()> over;
};

/// Waits until `done`, which is made true by what is enqueued on `stream`; without a call of the
/// driver that would wait. Ends with the stream's failure, with why the wait is over, or with
/// Code::timeout.
Status await_stream(const gpu::Stream& stream, const StreamLimits& limits,
                    FunctionRef<bool()> done);

}  // namespace slip
