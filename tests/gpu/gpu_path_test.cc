// How a network's device reaches memory of a GPU.

#include <gmock/gmock.h>

#include "slipstream/transport/verbs/gpu_memory_internal.h"

namespace slip::verbs {
namespace {

TEST(GpuPath, TheBestThatWorksIsTakenAndSaysWhyNothingBetter) {
  struct Case {
    GpuObstacles obstacles;
    GpuPath path;
    const char* says;
  };
  for (const Case& one : {
           Case{{}, GpuPath::dma_buf, "dma-buf"},
           Case{{"", "the driver has none", ""},
                GpuPath::peermem,
                "nvidia-peermem (dma-buf: the driver has none)"},
           Case{{"", "the driver has none", "Bad address"},
                GpuPath::staged,
                "staged through the host's memory (dma-buf: the driver has none; nvidia-peermem: "
                "Bad address)"},
           Case{{"nothing flushes", "", ""},
                GpuPath::staged,
                "staged through the host's memory (nothing flushes)"},
       }) {
    const GpuChoice choice = choose_path(one.obstacles);
    EXPECT_EQ(choice.path, one.path) << one.says;
    EXPECT_EQ(describe(choice), one.says);
  }
}

}  // namespace
}  // namespace slip::verbs
