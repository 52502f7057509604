#pragma once

#include <gtest/gtest.h>

#include "slipstream/gpu/device.h"

/// Tests run on the fake driver, or with SLIP_TEST_GPU=1 on this machine's GPU; where there is none
/// they skip. In a program that is linked with the target slip_gpu_driver.
#define SLIP_NEEDS_GPU() \
  if (const slip::Status s = slip::gpu::usable(); !s) GTEST_SKIP() << s.message()
