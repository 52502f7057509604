#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdint>

#include "slipstream/kernels/kernels.h"

namespace slip::kernels {

/// Tests of kernels, which run with each instruction set that this processor has.
class OnEveryTarget : public ::testing::Test {
 protected:
  void TearDown() override { hwy::GetChosenTarget().DeInit(); }

  template <class Body>
  void on_every_target(Body body) {
    for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
      hwy::GetChosenTarget().Update(target);
      ASSERT_STREQ(target_name(), hwy::TargetName(target));
      SCOPED_TRACE(target_name());
      body();
    }
  }
};

}  // namespace slip::kernels
