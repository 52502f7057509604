#include "slipstream/transport/await_stream.h"

#include <fmt/format.h>

#include <thread>

#include "slipstream/base/steady_clock_internal.h"

namespace slip {

using namespace std::chrono_literals;

Status await_stream(const gpu::Stream& stream, const StreamLimits& limits,
                    FunctionRef<bool()> done) {
  if (done()) return {};
  for (const Time start = steady_now(); !done(); std::this_thread::sleep_for(20us)) {
    if (Status s = stream.status(); !s) return s;
    if (limits.over) {
      if (Status s = limits.over(); !s) return s;
    }
    if (steady_now() - start < limits.timeout) continue;
    return {Code::timeout,
            fmt::format("GPU {}: waited {:.3g} s to put what follows the work on a stream; end the "
                        "kernel, or send the word, that this stream waits for",
                        stream.device(), to_seconds(limits.timeout))};
  }
  return {};
}

}  // namespace slip
