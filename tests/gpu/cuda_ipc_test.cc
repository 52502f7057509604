// Memory of GPUs between processes of one host: what the conformance body does not ask.

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conformance.h"
#include "driver.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/runtime/tokens.h"
#include "slipstream/runtime/update_queue.h"

namespace slip::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::Each;
using ::testing::HasSubstr;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

/// Of the fake driver (tests/gpu/fake_cuda/settings.h).
using Settings = std::vector<std::pair<std::string, std::string>>;

/// Workers with memory of GPUs.
RunOptions options(const Settings& settings = {}, const std::string& transport = "cuda_ipc") {
  RunOptions result;
  result.world.transport = transport;
  result.world.wait_timeout = 60s;
  result.environment = settings;
  return result;
}

void run(int workers, const Work& work, const RunOptions& how = options()) {
  EXPECT_THAT(run_processes(workers, work, how), Each(0));
}

class CudaIpc : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = gpu_backends().front().missing;
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
};

/// GPUs that fail on request.
class CudaIpcErrors : public CudaIpc {
 protected:
  void SetUp() override {
    if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  }
};

/// What `body` throws.
template <class Body>
std::string refusal(Code code, const Body& body) {
  try {
    body();
    ADD_FAILURE() << "nothing was refused";
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
}

// ---- What is refused.

TEST_F(CudaIpc, ThePayloadOfAGpusRegionComesFromThatGpu) {
  run(1, [](World& world) {
    const Region region = world.allocate("region", 4096, Bell::worker, 0);
    const RemoteRegion self = world.attach(0, "region");
    const std::uint64_t value = 1;
    for (const Status& status :
         {world.transport().put(self, 64, &value, sizeof value),
          world.transport().put_signal(self, 64, &value, sizeof value, 0, 1)}) {
      EXPECT_EQ(status.code(), Code::invalid_argument);
      EXPECT_THAT(status.message(), HasSubstr("takes its payload from memory of GPU 0, and was "
                                              "given memory of the host; copy it there first"));
    }
    EXPECT_EQ(region.word(0), 0u);
  });
}

TEST_F(CudaIpcErrors, AWorkerUsesOneGpu) {
  run(
      1,
      [](World& world) {
        const Region region = world.allocate("first", 64, Bell::worker, 1);
        EXPECT_THAT(refusal(Code::invalid_argument,
                            [&] { (void)world.allocate("second", 64, Bell::worker, 0); }),
                    HasSubstr("this worker has memory of GPU 1 and asks for memory of GPU 0"));
      },
      options({{"FAKE_CUDA_DEVICES", "2"}}));
}

TEST_F(CudaIpcErrors, AWrongGpuIsNamedAndHowManyThereAre) {
  run(1, [](World& world) {
    EXPECT_THAT(
        refusal(Code::invalid_argument, [&] { (void)world.allocate("x", 64, Bell::worker, 7); }),
        HasSubstr("GPU 7 is not here: this process sees 1"));
  });
}

TEST_F(CudaIpcErrors, WhoAsksForCudaIpcIsToldThatThereIsNone) {
  const auto work = [](World& world) {
    EXPECT_THAT(
        refusal(Code::not_supported, [&] { (void)world.allocate("x", 64, Bell::worker, 0); }),
        HasSubstr("GPU 0: sharing its memory with other processes (CUDA IPC): operation not "
                  "supported; transport auto goes by way of the host"));
  };
  run(1, work, options({{"FAKE_CUDA_IPC", "0"}}));
}

TEST_F(CudaIpcErrors, WhoCannotOpenAPeersMemoryIsToldWhoseAndWhatToChoose) {
  const auto work = [](World& world) {
    const Region region = world.allocate("x", 64, Bell::worker, 0);
    EXPECT_THAT(refusal(Code::io, [&] { (void)world.attach(1 - world.rank(), "x"); }),
                AllOf(HasSubstr("a region of rank " + std::to_string(1 - world.rank()) +
                                ": GPU 0: opening memory of GPU-01000000-0000-0000-0000-"),
                      HasSubstr(" (CUDA IPC): operation not supported; choose transport ucx")));
    world.bootstrap().fence(60s);  // before the region goes
  };
  run(2, work, options({{"FAKE_CUDA_IPC_OPEN", "0"}}));
}

// The next one may be at the same address.
TEST_F(CudaIpcErrors, WithoutCudaIpcPagesOfTheHostAreLetGoWithTheirRegion) {
  const auto work = [](World& world) {
    for (int i = 0; i < 20; ++i) {
      const Region region = world.allocate(std::to_string(i), 10'000, Bell::worker, 0);
      EXPECT_EQ(Contents(region, 9'992, 8).as<Word>(), 0u);
    }
  };
  run(1, work, options({{"FAKE_CUDA_IPC", "0"}}, "auto"));
}

TEST_F(CudaIpc, TransportsWithoutGpusSayWhichHaveThem) {
  run(
      1,
      [](World& world) {
        EXPECT_THAT(
            refusal(Code::not_supported, [&] { (void)world.allocate("x", 64, Bell::worker, 0); }),
            HasSubstr("transport shm has no memory of GPU 0; choose cuda_ipc, ucx or verbs"));
      },
      options({}, "shm"));
}

TEST_F(CudaIpcErrors, WithoutADriverNobodyJoins) {
  for (const auto& [setting, why] :
       {std::pair<Settings, const char*>{{{"SLIP_CUDA_LIBRARY", "/nowhere"}}, "/nowhere"},
        {{{"FAKE_CUDA_VERSION", "10020"}}, "too old: it serves CUDA 10.2"},
        {{{"FAKE_CUDA_DEVICES", "0"}}, "no GPU is here"}}) {
    ::testing::internal::CaptureStdout();
    EXPECT_THAT(run_processes(
                    2, [](World&) {}, options(setting)),
                Each(2 << 8));
    EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr(why));
  }
}

// ---- Errors on the way.

TEST_F(CudaIpcErrors, WhoFindsNoMemoryOnItsGpuSaysSoAndTheOthersEnd) {
  ::testing::internal::CaptureStdout();
  const auto ends = run_processes(
      2,
      [](World& world) {
        // The fake GPU has 4 MB for each process, of which a region takes 2 MiB or a multiple.
        const std::size_t bytes = world.rank() == 1 ? 4'000'000 : 4096;
        const Region region = world.allocate("slots", bytes, Bell::worker, 0);
        const RemoteRegion theirs = world.attach(1 - world.rank(), "slots");
        ADD_FAILURE() << "there was enough";
      },
      options({{"FAKE_CUDA_MEMORY", "4000000"}}));
  EXPECT_THAT(ends, Each(2 << 8));
  EXPECT_THAT(::testing::internal::GetCapturedStdout(),
              AllOf(HasSubstr("rank 1: GPU 0: allocating 4194304 bytes: out of memory"),
                    ContainsRegex("rank 0: .*rank 1")));
}

TEST_F(CudaIpc, APeerKilledInTheMiddleOfPutsIsLost) {
  const auto ends = run_processes(
      2,
      [](World& world) {
        constexpr std::size_t bytes = 1 << 20;
        const Region here = world.allocate("slots", 64 + bytes, Bell::worker, 0);
        if (world.rank() == 1) {
          const RemoteRegion there = world.attach(0, "slots");
          const auto source = gpu::allocate(0, bytes);
          for (Word k = 1;; ++k) {
            expect_ok(world.transport().put_signal(there, 64, source.get(), bytes, 0, k));
            if (k == 20) raise(SIGKILL);
          }
        }
        const Status status =
            world.wait_until([&] { return here.word(0) > 20; }, world.deadline(), "the impossible");
        EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
        EXPECT_EQ(status.peer(), 1);
        world.abort(status);
      },
      options());
  EXPECT_EQ(ends[0], 0);
  EXPECT_TRUE(WIFSIGNALED(ends[1]));
}

// The kernel that fails takes with it the word behind it, for which the peer waits.
TEST_F(CudaIpcErrors, AGpuThatIsLostEndsItsWorkersWaitsAndThePeersHearOfIt) {
  const auto ends = run_processes(
      2,
      [](World& world) {
        const Region here = world.allocate("words", 128, Bell::worker, 0);
        const RemoteRegion there = world.attach(1 - world.rank(), "words");
        const gpu::Stream stream(0);
        const gpu::CurrentStream current(stream);
        constexpr std::size_t count = 1000;
        const auto memory = gpu::allocate(0, 2 * count * sizeof(float));
        const VectorView x{memory.get(), count, Dtype::float32, 0};
        const VectorView y{memory.get() + x.bytes(), count, Dtype::float32, 0};
        Status status;
        for (Word k = 1; status && k <= 1000; ++k) {
          if (world.rank() == 1) kernels::axpy(y, 2, x);
          status = world.transport().put_signal(there, 0, nullptr, 0, 64, k);
          if (!status) break;
          status = world.wait_until([&] { return here.word(64) >= k; }, world.deadline(), "a word");
        }
        // Its peer hears of the failure, or of the end that follows at once.
        EXPECT_THAT(status.message(), HasSubstr(world.rank() == 1 ? "GPU 0 is lost" : "rank 1"));
        EXPECT_TRUE(world.rank() == 0 || status.code() == Code::io);
        world.fail(status);
      },
      options({{"FAKE_CUDA_LOST_AFTER", "20"}}));
  EXPECT_THAT(ends, Each(0));
}

TEST_F(CudaIpcErrors, AMarkThatCannotBeEnqueuedEndsTheWorldWithItsCause) {
  run(1, [](World& world) {
    const Region region = world.allocate("gpu", 128, Bell::worker, 0);
    const RemoteRegion self = world.attach(0, "gpu");
    const auto source = gpu::allocate(0, 64);
    expect_ok(world.transport().put(self, 0, source.get(), 64));
    fail_calls("cuLaunchHostFunc");
    (void)world.transport().drained(0);
    const Status status =
        world.wait_until([] { return false; }, world.deadline(), "the impossible");
    EXPECT_EQ(status.code(), Code::io) << status.message();
    EXPECT_THAT(status.message(), HasSubstr("GPU 0: enqueuing a call: operation not permitted"));
    world.fail(status);
  });
}

// ---- GPUs that cannot reach each other.

/// Each puts into memory of the next one's GPU, several times.
void put_around(World& world, int device) {
  constexpr std::size_t bytes = 100'000;
  const int n = world.size();
  const int previous = (world.rank() + n - 1) % n;
  const gpu::Stream stream(device);
  const gpu::CurrentStream current(stream);
  const Region here = world.allocate("slots", 64 + bytes, Bell::worker, device);
  const auto source = gpu::allocate(device, bytes);
  const RemoteRegion next = world.attach((world.rank() + 1) % n, "slots");
  for (Word k = 1; k <= 10; ++k) {
    const auto of = [k](int rank) {
      return std::vector<std::byte>(bytes, static_cast<std::byte>(16 * (rank + 1) + k));
    };
    expect_ok(gpu::copy(source.get(), of(world.rank()).data(), bytes, stream));
    expect_ok(world.transport().put_signal(next, 64, source.get(), bytes, 0, k));
    expect_ok(world.wait_until([&] { return here.word(0) >= k; }, world.deadline(), "a word"));
    const Contents found(here, 64, bytes);
    EXPECT_EQ(std::vector(found.data(), found.data() + bytes), of(previous)) << "put " << k;
    world.bootstrap().fence(60s);  // before it is put over
  }
}

TEST_F(CudaIpcErrors, BetweenGpusThatCannotReachEachOtherCopiesGoByWayOfTheHost) {
  const Settings settings = {
      {"FAKE_CUDA_DEVICES", "3"}, {"FAKE_CUDA_PEER_ACCESS", "0"}, {"FAKE_CUDA_DELAY_US", "1000"}};
  for (const char* transport : {"cuda_ipc", "auto"}) {
    run(
        3, [](World& world) { put_around(world, world.rank()); }, options(settings, transport));
  }
}

TEST_F(CudaIpcErrors, BetweenThreadsToo) {
  const auto work = [](World&) {
    launch(3, [](World& world) { put_around(world, world.rank()); });
  };
  run(1, work, options({{"FAKE_CUDA_DEVICES", "3"}, {"FAKE_CUDA_PEER_ACCESS", "0"}}));
}

// Who lets go last is not the GPU whose memory it is.
TEST_F(CudaIpcErrors, MemoryOfAnotherThreadsGpuStaysUntilPutsToItAreDone) {
  const auto work = [](World&) {
    launch(2, [](World& world) {
      Region here = world.allocate("slot", 128, Bell::worker, world.rank());
      if (world.rank() == 0) {
        world.bootstrap().fence(60s);
        here = {};
        world.bootstrap().fence(60s);
      } else {
        const auto source = gpu::allocate(1, 64);
        const RemoteRegion there = world.attach(0, "slot");
        for (int i = 0; i < 20; ++i) expect_ok(world.transport().put(there, 64, source.get(), 64));
        world.bootstrap().fence(60s);
        world.bootstrap().fence(60s);
      }
    });
  };
  run(1, work, options({{"FAKE_CUDA_DEVICES", "2"}, {"FAKE_CUDA_DELAY_US", "20000"}}));
}

// Rank 1 sees only the machine's second GPU, which is its GPU 0.
TEST_F(CudaIpcErrors, APeersGpuIsFoundUnderItsNumberHereAndAHiddenOneIsNamed) {
  const auto work = [](World& world) {
    if (world.rank() == 1) {
      setenv("FAKE_CUDA_FIRST", "1", 1);
      setenv("FAKE_CUDA_DEVICES", "1", 1);
    }
    const Region here = world.allocate("x", 64, Bell::worker, 0);
    if (world.rank() == 0) {
      const RemoteRegion there = world.attach(1, "x");
      const auto source = gpu::allocate(0, 8);
      expect_ok(world.transport().put_signal(there, 8, source.get(), 8, 0, 1));
    } else {
      EXPECT_THAT(refusal(Code::io, [&] { (void)world.attach(0, "x"); }),
                  AllOf(HasSubstr("a region of rank 0: GPU 0: opening memory of GPU-01000000-"),
                        HasSubstr(", which is hidden from this process (CUDA IPC): peer access is "
                                  "not supported between these two devices; choose transport "
                                  "ucx")));
      expect_ok(world.wait_until([&] { return here.word(0) == 1; }, world.deadline(), "a word"));
    }
    world.bootstrap().fence(60s);  // before the region goes
  };
  run(2, work, options({{"FAKE_CUDA_DEVICES", "2"}, {"FAKE_CUDA_PEER_ACCESS", "0"}}, "auto"));
}

// ---- By way of the host.

TEST_F(CudaIpcErrors, ByWayOfTheHostARegionIsASourceBehindTheFaultProxyToo) {
  RunOptions how = options({{"FAKE_CUDA_IPC", "0"}}, "auto");
  how.faults.emplace();
  how.faults->delay_probability = 1;
  how.faults->max_delay = 1ms;
  const auto work = [](World& world) {
    const Region here = world.allocate("slots", 128, Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "slots");
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    const int mine = 100 + world.rank();
    expect_ok(gpu::copy(here.data() + 32, &mine, sizeof mine, stream));
    expect_ok(world.transport().put_signal(there, 64, here.data() + 32, sizeof mine, 0, 1));
    expect_ok(world.wait_until([&] { return here.word(0) == 1; }, world.deadline(), "a word"));
    EXPECT_EQ(Contents(here, 64, sizeof mine).as<int>(), 101 - world.rank());
    world.bootstrap().fence(60s);
  };
  run(2, work, how);
}

// ---- CUDA graphs.

TEST_F(CudaIpc, ACaptureByTheProgramIsNotBrokenNorTakenForALossOfTheGpu) {
  run(1, [](World& world) {
    const Region region = world.allocate("words", 128, Bell::worker, 0);
    const gpu::Stream stream(0);
    gpu::Event mark(0);
    Capture capture;
    // The progress thread looks at the GPU whenever it polls.
    std::atomic<int> polls{0};
    const auto handle = world.progress().serve(world.transport(), [&polls] {
      ++polls;
      return false;
    });
    while (polls < 3) {
      world.progress().serve_soon();
      std::this_thread::sleep_for(1ms);
    }
    expect_ok(mark.record(stream));
    expect_ok(world.wait_for_gpu(mark, "nothing"));
    expect_ok(world.wait_until([&] { return stream.idle(); }, world.deadline(), "the stream"));
    EXPECT_TRUE(capture.end());
    expect_ok(world.status());
  });
}

// ---- What stands on it.

TEST_F(CudaIpc, ThreadsShareMemoryOfTheGpu) {
  run(1, [](World&) {
    launch(3, [](World& world) {
      const Region here = world.allocate("region", 128, Bell::worker, 0);
      const RemoteRegion next = world.attach((world.rank() + 1) % 3, "region");
      Payloads sources(0);
      const int value = 100 + world.rank();
      expect_ok(world.transport().put_signal(next, 64, sources.at(&value, sizeof value),
                                             sizeof value, 0, 1));
      expect_ok(world.wait_until([&] { return here.word(0) == 1; }, world.deadline(), "a word"));
      EXPECT_EQ(Contents(here, 64, sizeof value).as<int>(), 100 + (world.rank() + 2) % 3);
    });
  });
}

TEST_F(CudaIpc, QueuesAndTokensCarryUpdatesInMemoryOfGpus) {
  run(3, [](World& world) {
    constexpr std::size_t bytes = 300'000;
    constexpr int max_gap = 2;
    const Neighbourhood ring =
        neighbourhood(Graph(3, {{0, 1, {}}, {1, 2, {}}, {2, 0, {}}}), world.rank());
    UpdateQueueOptions layout;
    layout.bytes = bytes;
    layout.depth = max_gap + 1;
    layout.chunk_bytes = 100'000;
    layout.device = 0;
    UpdateQueue queue(world, "updates", ring, layout);
    Tokens tokens(world, "tokens", ring, max_gap);
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    const auto model = gpu::allocate(0, bytes);
    std::vector<std::byte> mine(bytes), theirs(bytes);
    const int sender = (world.rank() + 2) % 3;
    for (Iteration k = 0; k < 30; ++k) {
      expect_ok(world.wait_until([&] { return tokens.may_enter(k); }, world.deadline(), "tokens"));
      expect_ok(tokens.announce(k));
      const auto fill = [&](std::vector<std::byte>& update, int rank) {
        for (std::size_t i = 0; i < bytes; ++i) {
          update[i] = static_cast<std::byte>(i * 31 + k * 7 + static_cast<std::size_t>(rank));
        }
      };
      fill(mine, world.rank());
      expect_ok(gpu::copy(model.get(), mine.data(), bytes, stream));
      expect_ok(queue.enqueue(0, k, model.get()));
      expect_ok(world.wait_until([&] { return queue.arrived(0, k); }, world.deadline(), "it"));
      expect_ok(queue.verify(0, k));
      expect_ok(gpu::copy(theirs.data(), queue.update(0, k), bytes, stream));
      fill(mine, sender);
      ASSERT_EQ(std::memcmp(mine.data(), theirs.data(), bytes), 0) << "iteration " << k;
    }
    expect_ok(tokens.announce_finished());
  });
}

}  // namespace
}  // namespace slip::testing
