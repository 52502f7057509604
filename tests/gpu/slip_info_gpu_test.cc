// What `slip info` says of the ways to a GPU's memory.

#include <gmock/gmock.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace slip::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class SlipInfo : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  }
  static std::string info() {
    std::FILE* const pipe = popen(SLIP_PROGRAM " info", "r");
    std::string output;
    for (char text[4096]; const std::size_t n = std::fread(text, 1, sizeof text, pipe);) {
      output.append(text, n);
    }
    EXPECT_EQ(pclose(pipe), 0);
    return output;
  }
};

TEST_F(SlipInfo, EachWayToAGpusMemoryIsProvenByATransfer) {
  setenv("FAKE_CUDA_DEVICES", "2", 1);
  EXPECT_THAT(info(),
              AllOf(HasSubstr("cuda_ipc        available"), HasSubstr("GPU 0           Fake GPU 0"),
                    HasSubstr("GPU 1           Fake GPU 1, 0000:11:00.0"),
                    HasSubstr("cuda_ipc: proven by a transfer between two processes"),
                    HasSubstr("staged through the host's memory")));
}

TEST_F(SlipInfo, AWayThatFailsSaysWhy) {
  setenv("FAKE_CUDA_IPC", "0", 1);
  EXPECT_THAT(info(), AllOf(HasSubstr("none: GPU 0"), HasSubstr("(CUDA IPC)"),
                            Not(HasSubstr("proven by a transfer between"))));
}

TEST_F(SlipInfo, WithoutAGpuItSaysWhyThereIsNone) {
  setenv("FAKE_CUDA_DEVICES", "0", 1);
  EXPECT_THAT(info(), AllOf(HasSubstr("cuda_ipc        absent: no GPU is here"),
                            Not(HasSubstr("Memory of GPUs"))));
}

}  // namespace
}  // namespace slip::testing
