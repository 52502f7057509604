// What `slip info` says of the ways to a GPU's memory.

#include <gmock/gmock.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace slip::testing {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class SlipInfo : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  }
  static std::string info(const std::string& options = "") {
    return output_of(SLIP_PROGRAM " info " + options);
  }
  static std::string output_of(const std::string& command) {
    std::FILE* const pipe = popen(command.c_str(), "r");
    std::string output;
    for (char text[4096]; const std::size_t n = std::fread(text, 1, sizeof text, pipe);) {
      output.append(text, n);
    }
    EXPECT_EQ(pclose(pipe), 0);
    return output;
  }
};

/// On a network device, too, that is fake.
class SlipInfoWithVerbs : public SlipInfo {
 protected:
  void SetUp() override {
    SlipInfo::SetUp();
#ifdef SLIP_FAKE_VERBS
    setenv("SLIP_VERBS_LIBRARY", SLIP_FAKE_VERBS, 1);
#else
    GTEST_SKIP() << "built without verbs";
#endif
  }
};

TEST_F(SlipInfo, EachWayToAGpusMemoryIsProvenByATransfer) {
  setenv("FAKE_CUDA_DEVICES", "3", 1);
  EXPECT_THAT(
      info(),
      AllOf(HasSubstr("cuda_ipc        available"), HasSubstr("GPU 0           Fake GPU 0"),
            HasSubstr("GPU 1           Fake GPU 1, 0000:11:00.0"),
            HasSubstr("  same host     cuda_ipc: proven by a transfer between two processes\n"),
            HasSubstr("  GPU 0 to 1-2    cuda_ipc: proven by a transfer between two processes\n"),
            HasSubstr("  GPU 1 to 0,2    cuda_ipc: proven by a transfer between two processes\n"),
            HasSubstr("same host; memory of GPUs by cuda_ipc")));
}

TEST_F(SlipInfo, WithoutCudaIpcMemoryGoesByWayOfTheHost) {
  setenv("FAKE_CUDA_DEVICES", "2", 1);
  setenv("FAKE_CUDA_IPC", "0", 1);
  EXPECT_THAT(
      info(),
      AllOf(
          HasSubstr("  same host     way of the host: proven by a transfer between two processes "
                    "(GPU 0: sharing its memory with other processes (CUDA IPC)"),
          HasSubstr("  GPU 0 to 1      way of the host: proven by a transfer between two processes "
                    "(GPU 1: sharing its memory with other processes (CUDA IPC)"),
          HasSubstr("same host; memory of GPUs by way of the host")));
}

TEST_F(SlipInfo, GpusThatCannotReachEachOtherGoByWayOfTheHost) {
  setenv("FAKE_CUDA_DEVICES", "2", 1);
  setenv("FAKE_CUDA_PEER_ACCESS", "0", 1);
  EXPECT_THAT(info(), AllOf(HasSubstr("  same host     cuda_ipc: proven"),
                            HasSubstr("  GPU 1 to 0      cuda_ipc by way of the host: proven by a "
                                      "transfer between two processes (the driver has no peer "
                                      "access between the two")));
}

TEST_F(SlipInfo, AWayThatFailsSaysWhy) {
  setenv("FAKE_CUDA_IPC_OPEN", "0", 1);
  EXPECT_THAT(info(), AllOf(HasSubstr("none: GPU 0"), HasSubstr("(CUDA IPC)"),
                            HasSubstr("; transport ucx goes by way of the host"),
                            Not(HasSubstr("emory of GPUs by")),
                            Not(HasSubstr("proven by a transfer between"))));
}

TEST_F(SlipInfo, WithoutVerbsTheReasonIsSaidOnce) {
  setenv("SLIP_VERBS_LIBRARY", "/nowhere/libibverbs.so.1", 1);
  EXPECT_THAT(info(), AllOf(ContainsRegex("other hosts   (ucx: staged through the host's memory: "
                                          "proven by a transfer|none: ucx)"),
                            HasSubstr("/nowhere/libibverbs.so.1"), Not(HasSubstr("verbs: verbs"))));
}

TEST_F(SlipInfo, ADriverThatHangsIsGivenUp) {
  setenv("FAKE_CUDA_DELAY_US", "1000000000", 1);
  EXPECT_THAT(info("--timeout 5"),
              AllOf(ContainsRegex("same host     none: the process that (has|writes).* did not "
                                  "answer for 5 s and was killed; look for the driver's messages"),
                    ContainsRegex("other hosts   none: .* did not answer for 5 s and was killed"),
                    HasSubstr("Paths of 2 workers")));
}

TEST_F(SlipInfoWithVerbs, TheWayOfANetworkIsProvenByATransfer) {
  EXPECT_THAT(info(),
              HasSubstr("  other hosts   verbs: dma-buf: proven by a transfer over rxe0 port "
                        "1 to itself\n"));
  setenv("FAKE_CUDA_DMA_BUF", "0", 1);
  setenv("FAKE_VERBS_PEERMEM", "1", 1);
  EXPECT_THAT(info(), HasSubstr("verbs: nvidia-peermem (dma-buf: the driver has none (the open "
                                "kernel modules have)): proven by a transfer over rxe0"));
  setenv("FAKE_VERBS_PEERMEM", "0", 1);
  EXPECT_THAT(info(), ContainsRegex("verbs: staged through the host's memory \\(.*nvidia-peermem: "
                                    ".*: proven by a transfer over rxe0"));
}

// Whose world has the device open, and perhaps a driver.
TEST_F(SlipInfoWithVerbs, AmongWorkersOfALauncherTheFirstTriesItsOwn) {
  const std::string output =
      output_of(SLIP_PROGRAM " run -n 2 " SLIP_PROGRAM " info --transport verbs");
  EXPECT_THAT(output, AllOf(HasSubstr("[0]     other hosts   verbs: dma-buf: proven by a transfer"),
                            HasSubstr("[0] Paths of 2 workers"), Not(HasSubstr("[1]"))));
}

TEST_F(SlipInfoWithVerbs, MemoryThatIsOnlyRegisteredIsNotProven) {
  setenv("FAKE_CUDA_FAIL", "cuFlushGPUDirectRDMAWrites", 1);
  EXPECT_THAT(info(),
              AllOf(HasSubstr("  other hosts   none: rxe0 port 1 by dma-buf: GPU 0: flushing "
                              "what a network has written: operation not permitted; "
                              "transport ucx goes by way of the host"),
                    Not(HasSubstr("proven by a transfer over"))));
}

TEST_F(SlipInfoWithVerbs, TheNicNearestToTheGpuIsTaken) {
  setenv("FAKE_CUDA_DEVICES", "2", 1);
  setenv("HWLOC_XMLFILE", SLIP_TOPOLOGIES "/two_switches.xml", 1);
  EXPECT_THAT(info(), ContainsRegex("GPU 0 .*nearest NIC rxe1 \\(PCI switch\\).*\n.*\n.* over rxe1 "
                                    "port 1 to itself\n.*"
                                    "GPU 1 .*nearest NIC rxe0 \\(PCI switch\\).*\n.*\n.* over rxe0 "
                                    "port 1 to itself\n"));
  setenv("SLIP_VERBS_DEVICE", "rxe0", 1);
  EXPECT_THAT(info(), Not(HasSubstr("over rxe1")));
}

TEST_F(SlipInfo, WhetherNcclCanBeUsedIsSaidAndWhyNot) {
#ifdef SLIP_FAKE_NCCL
  setenv("SLIP_NCCL_LIBRARY", SLIP_FAKE_NCCL, 1);
  EXPECT_THAT(info(), HasSubstr("nccl            available: NCCL 2.28.9, for groups that repeat"));
  setenv("FAKE_NCCL_VERSION", "21703", 1);
  EXPECT_THAT(info(), HasSubstr("is too old: NCCL 2.17.3; install NCCL 2.18.0 or newer"));
  setenv("SLIP_NCCL_LIBRARY", "/nowhere/libnccl.so.2", 1);
  EXPECT_THAT(info(), HasSubstr("nccl            absent: /nowhere/libnccl.so.2 cannot be loaded"));
#else
  EXPECT_THAT(info(), HasSubstr("nccl            absent: built without NCCL"));
#endif
}

TEST_F(SlipInfo, WithoutAGpuItSaysWhyThereIsNone) {
  setenv("FAKE_CUDA_DEVICES", "0", 1);
  EXPECT_THAT(info(), AllOf(HasSubstr("cuda_ipc        absent: no GPU is here"),
                            Not(HasSubstr("emory of GPUs by")), Not(HasSubstr("Memory of GPUs"))));
}

}  // namespace
}  // namespace slip::testing
