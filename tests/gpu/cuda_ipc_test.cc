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
#include <vector>

#include "conformance.h"
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
        // The fake GPU has 1 MB for each process.
        const std::size_t bytes = world.rank() == 1 ? 2'000'000 : 4096;
        const Region region = world.allocate("slots", bytes, Bell::worker, 0);
        const RemoteRegion theirs = world.attach(1 - world.rank(), "slots");
        ADD_FAILURE() << "there was enough";
      },
      options({{"FAKE_CUDA_MEMORY", "1000000"}}));
  EXPECT_THAT(ends, Each(2 << 8));
  EXPECT_THAT(::testing::internal::GetCapturedStdout(),
              AllOf(HasSubstr("rank 1: GPU 0: allocating 2000000 bytes: out of memory"),
                    ContainsRegex("rank 0: .*rank 1")));
}

TEST_F(CudaIpc, APeerKilledInTheMiddleOfPutsIsLost) {
  const auto ends = run_processes(
      2,
      [](World& world) {
        constexpr std::size_t bytes = 1 << 20;
        const Region here = world.allocate("slots", 64 + bytes, Bell::worker, 0);
        const RemoteRegion there = world.attach(1 - world.rank(), "slots");
        const auto source = gpu::allocate(0, bytes);
        for (Word k = 1; world.rank() == 1; ++k) {
          expect_ok(world.transport().put_signal(there, 64, source.get(), bytes, 0, k));
          if (k == 20) raise(SIGKILL);
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

// ---- Words and streams.

/// Enqueues a call that takes a while and then says so.
void enqueue_slow(const gpu::Stream& stream, std::atomic<bool>& done) {
  expect_ok(stream.then(
      [](void* flag) {
        std::this_thread::sleep_for(50ms);
        static_cast<std::atomic<bool>*>(flag)->store(true);
      },
      &done));
}

/// The word is not seen before what was enqueued ahead of it is done.
void expect_behind(const World& world, const Region& region, std::size_t offset,
                   const std::atomic<bool>& done) {
  bool early = false;
  expect_ok(world.wait_until(
      [&] {
        const bool seen = region.word(offset) != 0;
        early = early || (seen && !done);
        return seen;
      },
      world.deadline(), "the word"));
  EXPECT_FALSE(early);
}

TEST_F(CudaIpc, ABareWordFollowsWhatIsEnqueuedWhicheverRegionItGoesTo) {
  run(1, [](World& world) {
    const Region gpus = world.allocate("gpu", 128, Bell::worker, 0);
    const Region hosts = world.allocate("host", 128);
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    for (const Region* region : {&gpus, &hosts}) {
      const RemoteRegion self = world.attach(0, region == &gpus ? "gpu" : "host");
      std::atomic<bool> done{false};
      enqueue_slow(stream, done);
      expect_ok(world.transport().put_signal(self, 0, nullptr, 0, 64, 1));
      EXPECT_FALSE(done) << "it has waited";
      expect_behind(world, *region, 64, done);
    }
  });
}

TEST_F(CudaIpc, DrainedWaitsForWhatIsEnqueuedAndRings) {
  run(1, [](World& world) {
    const Region region = world.allocate("gpu", 128, Bell::worker, 0);
    const RemoteRegion self = world.attach(0, "gpu");
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    const auto source = gpu::allocate(0, 64);
    for (int round = 0; round < 3; ++round) {
      std::atomic<bool> done{false};
      enqueue_slow(stream, done);
      expect_ok(world.transport().put(self, 0, source.get(), 64));
      expect_ok(world.wait_until([&] { return world.transport().drained(0); }, world.deadline(),
                                 "the put"));
      EXPECT_TRUE(done);
    }
  });
}

TEST_F(CudaIpc, MoreWordsMayBeEnqueuedThanThereArePlacesForThem) {
  run(2, [](World& world) {
    constexpr Word many = 5000;
    const Region here = world.allocate("words", 128, Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "words");
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    std::atomic<bool> done{false};
    enqueue_slow(stream, done);
    for (Word k = 1; k <= many; ++k) {
      expect_ok(world.transport().put_signal(there, 0, nullptr, 0, 64, k));
    }
    Word last = 0;
    bool in_order = true;
    expect_ok(world.wait_until(
        [&] {
          const Word now = here.word(64);
          in_order = in_order && now >= last;
          last = now;
          return now == many;
        },
        world.deadline(), "the last word"));
    EXPECT_TRUE(in_order);
  });
}

// ---- Streams that wait.

TEST_F(CudaIpc, AStreamWaitsForAWord) {
  run(2, [](World& world) {
    const Region here = world.allocate("words", 128, Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "words");
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    for (Iteration k = 1; k <= 20; ++k) {
      const Word word = make_word(world.incarnation(), k);
      if (world.rank() == 0) {
        expect_ok(world.wait_on_stream(here, 64, word));
        expect_ok(world.transport().put_signal(there, 0, nullptr, 0, 64, word));  // behind it
        EXPECT_LT(k > 1 ? here.word(64) : 0, word);
        world.bootstrap().put("enqueued/" + std::to_string(k), "");
      } else {
        (void)world.bootstrap().get("enqueued/" + std::to_string(k), 60s);
        std::this_thread::sleep_for(2ms);
        EXPECT_LT(here.word(64), word) << "it did not wait";
        expect_ok(world.transport().put_signal(there, 0, nullptr, 0, 64, word));
      }
      expect_ok(world.wait_until([&] { return here.word(64) >= word; }, world.deadline(), "it"));
    }
  });
}

TEST_F(CudaIpc, AnAbortReleasesAStreamThatWaits) {
  const auto ends = run_processes(
      2,
      [](World& world) {
        const Region here = world.allocate("words", 128, Bell::worker, 0);
        const RemoteRegion there = world.attach(1 - world.rank(), "words");
        world.bootstrap().fence(60s);
        if (world.rank() == 1) raise(SIGKILL);
        const gpu::Stream stream(0);
        const gpu::CurrentStream current(stream);
        expect_ok(world.wait_on_stream(here, 64, make_word(world.incarnation(), 5)));
        const Status status =
            world.wait_until([&] { return stream.idle(); }, world.deadline(), "the stream");
        // Its end may be seen before the abort that caused it.
        EXPECT_TRUE(status.ok() || status.code() == Code::peer_lost) << status.message();
        expect_ok(stream.synchronize());
        EXPECT_TRUE(world.aborted());
        expect_ok(world.wait_on_stream(here, 64, make_word(world.incarnation(), 9)));
        expect_ok(stream.synchronize());
      },
      options());
  EXPECT_EQ(ends[0], 0);
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
