// What a profiler sees of a training.

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "slipstream/runtime/launch.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

TEST(Nvtx, PhasesOfATrainingAreRangesOfItsDomain) {
  // Before the first range, which looks for the tool.
  setenv("NVTX_INJECTION64_PATH", SLIP_NVTX_TOOL, 1);
  void* const tool = dlopen(SLIP_NVTX_TOOL, RTLD_NOW);
  ASSERT_NE(tool, nullptr) << dlerror();
  const auto ended = reinterpret_cast<int (*)(const char*)>(dlsym(tool, "ended_ranges"));
  const auto open = reinterpret_cast<int (*)()>(dlsym(tool, "open_range_count"));
  constexpr int workers = 2, iterations = 20;
  launch(workers, [](World& world) {
    TrainerOptions options;
    options.iterations = iterations;
    Trainer trainer(world, {{nullptr, 10, Dtype::float32}}, Hop{}, options);
    while (trainer.running()) trainer.step(trainer.gradient()).throw_if_failed();
  });
  EXPECT_EQ(ended("compute"), workers * iterations);
  EXPECT_GE(ended("send"), workers * iterations);
  EXPECT_GE(ended("apply"), workers * iterations);
  EXPECT_EQ(open(), 0);
}

}  // namespace
}  // namespace slip
