#pragma once

#include <gtest/gtest.h>

#include <cstddef>

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/stream.h"

struct CUstream_st;

/// Tests run on the fake driver, or with SLIP_TEST_GPU=1 on this machine's GPU; where there is none
/// they skip. In a program that is linked with the target slip_gpu_driver.
#define SLIP_NEEDS_GPU() \
  if (const slip::Status s = slip::gpu::usable(); !s) GTEST_SKIP() << s.message()

namespace slip {

// Of the fake driver, which is in use.

/// All GPUs of this process are lost from now on.
void lose_gpus();

/// Pieces of work that were enqueued on a stream so far.
std::size_t enqueued_on(const gpu::Stream& stream);

/// All calls of that name fail from now on; null: none does.
void fail_calls(const char* name);

/// What a program does that makes a CUDA graph: it captures a stream of GPU 0, of whichever driver,
/// which is in order with the default stream, in the strictest mode. Belongs to one thread.
class Capture {
 public:
  Capture();
  /// Once. True: nothing has broken it.
  bool end();

 private:
  CUstream_st* stream_ = nullptr;
};

}  // namespace slip
