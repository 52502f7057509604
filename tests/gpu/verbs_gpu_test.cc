// Memory of GPUs over verbs: each way in which a network's device reaches it, on a device and a GPU
// that are fake (tests/rdma/fake_verbs, tests/gpu/fake_cuda). What such a device writes into memory
// of a GPU is not there before it is flushed.

#include <gmock/gmock.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conformance.h"
#include "driver.h"
#include "ends.h"
#include "payload.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/transport/staged_transport.h"
#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::StartsWith;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

/// Why nothing here can run; empty: it can.
std::string missing() {
  if (std::getenv("SLIP_TEST_GPU") != nullptr || std::getenv("SLIP_TEST_RDMA") != nullptr) {
    return "for fake devices alone";
  }
  return gpu_backends().front().missing;
}

using Settings = std::vector<std::pair<std::string, std::string>>;

RunOptions over_verbs(const Settings& settings) {
  RunOptions result;
  result.world.transport = "verbs";
  result.world.wait_timeout = 60s;
  result.environment = settings;
  return result;
}

/// What the two can do, and how memory is reached then.
struct Way {
  const char* name;
  Settings settings;
  std::string path;
};
std::ostream& operator<<(std::ostream& out, const Way& way) { return out << way.name; }

class VerbsGpu : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (const std::string why = missing(); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_P(VerbsGpu, PayloadsArriveWholeByTheBestWayThatThereIs) {
  const auto work = [](World& world) {
    EXPECT_THAT(verbs_gpu_path({}, 0), StartsWith(GetParam().path));
    constexpr std::size_t line = 64;
    constexpr std::size_t words = 50'000;
    const Region here = world.allocate("slot", line + 8 * words, Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "slot");
    Payloads sources(0);
    std::vector<std::uint64_t> payload(words);
    for (Word round = 1; round <= 20; ++round) {
      fill(payload.data(), words, round);
      expect_ok(world.transport().put_signal(there, line, sources.at(payload.data(), 8 * words),
                                             8 * words, 0, round));
      expect_ok(
          world.wait_until([&] { return here.word(0) == round; }, world.deadline(), "a word"));
      EXPECT_TRUE(is_whole(Contents(here, line, 8 * words).data(), words, round));
      world.bootstrap().fence(60s);
    }
    world.goodbye();
  };
  EXPECT_THAT(run_processes(2, work, over_verbs(GetParam().settings)), Each(0));
}

// Its pieces of pinned memory are read where they are, by a stream that has more to do before.
TEST_P(VerbsGpu, ALargePutToOneselfArrivesWhole) {
  const auto work = [](World& world) {
    constexpr std::size_t line = 64;
    constexpr std::size_t words = 2'000'000;
    if (world.rank() == 0) setenv("FAKE_CUDA_DELAY_US", "2000", 1);
    const Region here = world.allocate("slot", line + 8 * words, Bell::worker, 0);
    const RemoteRegion there = world.attach(0, "slot");
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    Payloads sources(0);
    std::vector<std::uint64_t> payload(words);
    fill(payload.data(), words, 7);
    const void* const source = sources.at(payload.data(), 8 * words);
    if (world.rank() == 1) {
      for (Word k = 1; k <= 200; ++k) {
        expect_ok(world.transport().put_signal(there, line, source, 64, 8, k));
      }
      const auto drained = [&] { return world.transport().drained(0); };
      world.bootstrap().put("sent", "");
      expect_ok(world.wait_until(drained, world.deadline(), "puts to take effect"));
    } else {
      (void)world.bootstrap().get("sent", 60s);
      expect_ok(world.transport().put_signal(there, line, source, 8 * words, 0, 1));
      expect_ok(world.wait_until([&] { return here.word(0) == 1; }, world.deadline(), "a word"));
      EXPECT_TRUE(is_whole(Contents(here, line, 8 * words).data(), words, 7));
    }
    world.bootstrap().fence(60s);
    world.goodbye();
  };
  EXPECT_THAT(run_processes(2, work, over_verbs(GetParam().settings)), Each(0));
}

// No copy is made there: none could be.
TEST_P(VerbsGpu, WhatIsInARegionIsSentFromWhereItIs) {
  const bool is_staged = GetParam().path.starts_with("staged");
  const auto work = [&](World& world) {
    constexpr std::size_t line = 64;
    constexpr std::size_t words = 500'000;
    std::vector<std::uint64_t> payload(words);
    fill(payload.data(), words, 7);
    const Region here = world.allocate("slot", line + 8 * words, Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "slot");
    if (world.rank() == 0) {
      Region source = world.allocate("source", 8 * words, Bell::worker, 0);
      const gpu::Stream stream(0);
      const gpu::CurrentStream current(stream);
      expect_ok(gpu::copy(source.data(), payload.data(), 8 * words, stream));
      fail_calls("cuMemcpyAsync");
      const Status status =
          world.transport().put_signal(there, line, source.data(), 8 * words, 0, 1);
      EXPECT_EQ(status.ok(), !is_staged) << status.message();
      source = {};  // while it is on its way
    } else if (!is_staged) {
      expect_ok(world.wait_until([&] { return here.word(0) == 1; }, world.deadline(), "a word"));
      EXPECT_TRUE(is_whole(Contents(here, line, 8 * words).data(), words, 7));
    }
    world.bootstrap().fence(60s);
    world.goodbye();
  };
  EXPECT_THAT(run_processes(2, work, over_verbs(GetParam().settings)), Each(0));
}

// Also behind copies that the receiver's GPU has not made yet, which may take as long as it takes
// to look.
TEST_P(VerbsGpu, DrainedSaysThatPutsHaveTakenEffect) {
  RunOptions options = over_verbs(GetParam().settings);
  options.environment.emplace_back("FAKE_CUDA_DELAY_US", "10000");
  const auto work = [](World& world) {
    constexpr std::size_t words = 10'000;
    const Region here = world.allocate("slot", 8 * words, Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "slot");
    Payloads sources(0);
    std::vector<std::uint64_t> payload(words);
    for (std::uint64_t round = 1; round <= 12; ++round) {
      if (world.rank() == 0) {
        fill(payload.data(), words, round);
        expect_ok(
            world.transport().put(there, 0, sources.at(payload.data(), 8 * words), 8 * words));
        const auto drained = [&] { return world.transport().drained(1); };
        expect_ok(world.wait_until(drained, world.deadline(), "a put to take effect"));
      }
      world.bootstrap().fence(60s);
      if (world.rank() == 1) {
        EXPECT_TRUE(is_whole(Contents(here, 0, 8 * words).data(), words, round)) << round;
      }
      world.bootstrap().fence(60s);
    }
    world.goodbye();
  };
  EXPECT_THAT(run_processes(2, work, options), Each(0));
}

INSTANTIATE_TEST_SUITE_P(
    Ways, VerbsGpu,
    ::testing::Values(
        Way{"DmaBuf", {}, "dma-buf"},
        Way{"ByDevicesThatKeepOrder", {{"FAKE_VERBS_IN_ORDER", "1"}}, "dma-buf"},
        Way{"WithoutAFlushWhereNoneIsNeeded",
            {{"FAKE_CUDA_WRITES_ORDERED", "1"}, {"FAKE_CUDA_FLUSH", "0"}},
            "dma-buf"},
        Way{"PeermemWhereTheDriverHasNoDmaBuf",
            {{"FAKE_CUDA_DMA_BUF", "0"}, {"FAKE_VERBS_PEERMEM", "1"}},
            "nvidia-peermem (dma-buf: the driver has none"},
        Way{"PeermemWhereTheDeviceHasNoDmaBuf",
            {{"FAKE_VERBS_DMA_BUF", "0"}, {"FAKE_VERBS_PEERMEM", "1"}},
            "nvidia-peermem (dma-buf: rxe0: Operation not supported)"},
        Way{"StagedWhereNeitherWorks",
            {{"FAKE_VERBS_DMA_BUF", "0"}},
            "staged through the host's memory (dma-buf: rxe0: Operation not supported; "
            "nvidia-peermem: Bad address; is the module loaded"},
        Way{"StagedWhereTheGpuLetsNobodyIn",
            {{"FAKE_CUDA_GPU_DIRECT", "0"}},
            "staged through the host's memory (the GPU lets no other device write its memory"},
        Way{"StagedWhereNothingFlushes",
            {{"FAKE_CUDA_FLUSH", "0"}},
            "staged through the host's memory (the driver cannot flush"}),
    [](const auto& info) { return info.param.name; });

/// What the GID of a fake device ends with, which is in the key of a worker's regions.
std::string gid_end(int device) { return {'\xff', '\xff', 10, 9, static_cast<char>(device), 1}; }

TEST(VerbsNearGpu, AWorkerTakesTheDeviceNearestToItsGpuUnlessOneIsAskedFor) {
  if (const std::string why = missing(); !why.empty()) GTEST_SKIP() << why;
  RunOptions options = over_verbs(
      {{"FAKE_CUDA_DEVICES", "2"}, {"HWLOC_XMLFILE", SLIP_TOPOLOGIES "/two_switches.xml"}});
  const auto expect_device = [&](int device) {
    const auto work = [device](World& world) {
      EXPECT_THAT(world.allocate("memory", 64).key(), HasSubstr(gid_end(device)));
      world.goodbye();
    };
    EXPECT_THAT(run_processes(1, work, options), Each(0));
  };
  options.world.device = 0;
  expect_device(1);
  options.world.device = 1;
  expect_device(0);
  options.world.device = 0;
  options.environment.emplace_back("SLIP_VERBS_DEVICE", "rxe0");
  expect_device(0);
}

// Memory of a GPU is freed once the GPU has done its work, which may wait for what comes.
TEST(VerbsGpuFreed, KeepsNothingWaitingThatComes) {
  if (const std::string why = missing(); !why.empty()) GTEST_SKIP() << why;
  const auto work = [](World& world) {
    if (world.rank() == 0) setenv("FAKE_CUDA_DELAY_US", "2000", 1);
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    const auto source = gpu::allocate(0, 64);
    Region freed = world.allocate("freed", 128, Bell::worker, 0);
    const Region here = world.allocate("here", 128, Bell::worker, 0);
    if (world.rank() == 0) {
      expect_ok(world.wait_until([&] { return freed.word(64) == 1; }, world.deadline(), "a word"));
      freed = {};
      world.bootstrap().fence(60s);
      std::this_thread::sleep_for(200ms);  // until the progress thread has let go of it
      expect_ok(world.wait_on_stream(here, 64, make_word(world.incarnation(), 1)));
      world.bootstrap().fence(60s);
      const auto has_come = [&] { return here.word(64) != 0; };
      expect_ok(world.wait_until(has_come, world.deadline(), "a word behind others"));
    } else {
      expect_ok(world.transport().put_signal(world.attach(0, "freed"), 0, source.get(), 64, 64, 1));
      world.bootstrap().fence(60s);
      const RemoteRegion there = world.attach(0, "here");
      world.bootstrap().fence(60s);
      for (Word k = 1; k <= 100; ++k) {
        expect_ok(world.transport().put_signal(there, 0, source.get(), 64, 72, k));
      }
      const Word word = make_word(world.incarnation(), 1);
      expect_ok(world.transport().put_signal(there, 0, nullptr, 0, 64, word));
    }
    world.bootstrap().fence(60s);
    world.goodbye();
  };
  EXPECT_THAT(run_processes(2, work, over_verbs({{"FAKE_CUDA_GPU_DIRECT", "0"}})), Each(0));
}

// Its stream has not come to all of it when the transport is gone.
TEST(VerbsGpuClosing, APeerMayPutUntilTheWorkerHasGone) {
  if (const std::string why = missing(); !why.empty()) GTEST_SKIP() << why;
  RunOptions options;
  options.world.transport = "shm";
  options.environment = {{"FAKE_CUDA_GPU_DIRECT", "0"}};
  const auto work = [](World& world) {
    if (world.rank() == 0) setenv("FAKE_CUDA_DELAY_US", "20000", 1);
    std::optional<End> end(
        std::in_place, world,
        std::make_unique<StagedTransport>(make_verbs_transport({.rank = world.rank()})));
    Region here = end->transport->allocate(128, Bell::worker, 0);
    world.bootstrap().put("here/" + std::to_string(world.rank()), here.key());
    const RemoteRegion there = end->attach(1 - world.rank(), "here");  // keeps the engine
    world.bootstrap().fence(60s);
    if (world.rank() == 0) {
      expect_ok(end->wait([&] { return here.word(64) > 0; }));
      here = {};
      end.reset();
      expect_ok(gpu::synchronize(0));
    } else {
      const auto source = gpu::allocate(0, 64);
      for (Word k = 1; end->transport->put_signal(there, 0, source.get(), 64, 64, k); ++k) {
        std::this_thread::sleep_for(5ms);
      }
    }
    world.bootstrap().fence(60s);
  };
  EXPECT_THAT(run_processes(2, work, options), Each(0));
}

struct Loss {
  const char* name;
  std::vector<std::pair<std::string, std::string>> settings;
  const char* call;  // that fails
  const char* says;
};
std::ostream& operator<<(std::ostream& out, const Loss& loss) { return out << loss.name; }

class VerbsGpuLoss : public ::testing::TestWithParam<Loss> {};

// What has come and is lost takes its word with it, so that nobody else would end the wait.
TEST_P(VerbsGpuLoss, EndsTheReceiversWorldWithItsCause) {
  if (const std::string why = missing(); !why.empty()) GTEST_SKIP() << why;
  const auto work = [](World& world) {
    constexpr std::size_t line = 64;
    const std::vector<std::byte> payload(400'000);  // too much for a message
    const Region here = world.allocate("slot", line + payload.size(), Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "slot");
    Payloads sources(0);
    const void* const source = sources.at(payload.data(), payload.size());
    world.bootstrap().fence(60s);
    if (world.rank() == 1) fail_calls(GetParam().call);
    world.bootstrap().fence(60s);
    if (world.rank() == 0) {
      expect_ok(world.transport().put_signal(there, line, source, payload.size(), 0, 1));
    }
    const Status status =
        world.wait_until([&] { return here.word(0) == 1; }, world.deadline(), "a word");
    if (world.rank() == 1) {
      EXPECT_EQ(status.code(), Code::io) << status.message();
      EXPECT_THAT(status.message(), HasSubstr(GetParam().says));
    } else {
      EXPECT_THAT(status.message(), HasSubstr("rank 1"));
    }
    world.fail(status);
  };
  EXPECT_THAT(run_processes(2, work, over_verbs(GetParam().settings)), Each(0));
}

INSTANTIATE_TEST_SUITE_P(
    Losses, VerbsGpuLoss,
    ::testing::Values(Loss{"Flush",
                           {},
                           "cuFlushGPUDirectRDMAWrites",
                           "GPU 0: flushing what a network has written: operation not permitted"},
                      Loss{"Copy",
                           {{"FAKE_CUDA_GPU_DIRECT", "0"}},
                           "cuMemcpyAsync",
                           "GPU 0: copying: operation not permitted"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace slip::testing
