// Memory of GPUs between processes of one host: words behind what a stream does, and streams that
// wait for words.

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conformance.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/runtime/wait.h"
#include "slipstream/transport/cuda_ipc/cuda_ipc_transport.h"
#include "slipstream/transport/mixed_transport.h"
#include "slipstream/transport/staged_transport.h"
#include "slipstream/transport/ucx/ucx_transport.h"

namespace slip::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::Each;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

RunOptions options() {
  RunOptions result;
  result.world.transport = "cuda_ipc";
  result.world.wait_timeout = 60s;
  return result;
}

void run(int workers, const Work& work, const RunOptions& how = options()) {
  EXPECT_THAT(run_processes(workers, work, how), Each(0));
}

class CudaIpcStreams : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = gpu_backends().front().missing;
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
};

// ---- Words behind what a stream does.

/// Enqueues a call that takes a while and then says so.
void enqueue_slow(const gpu::Stream& stream, std::atomic<bool>& done) {
  expect_ok(stream.then(
      [](void* flag) {
        std::this_thread::sleep_for(50ms);
        static_cast<std::atomic<bool>*>(flag)->store(true);
      },
      &done));
}

/// Enqueues a call that ends, and says so, once it is released.
struct Held {
  std::atomic<bool> released{false}, done{false};
};
void enqueue_held(const gpu::Stream& stream, Held& held) {
  expect_ok(stream.then(
      [](void* argument) {
        auto& call = *static_cast<Held*>(argument);
        for (int i = 0; i < 10'000 && !call.released; ++i) std::this_thread::sleep_for(1ms);
        call.done = true;
      },
      &held));
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

TEST_F(CudaIpcStreams, ABareWordFollowsWhatIsEnqueuedWhicheverRegionItGoesTo) {
  run(1, [](World& world) {
    const Region gpus = world.allocate("gpu", 128, Bell::worker, 0);
    const Region hosts = world.allocate("host", 128);
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    for (const Region* region : {&gpus, &hosts}) {
      const RemoteRegion self = world.attach(0, region == &gpus ? "gpu" : "host");
      Held held;
      enqueue_held(stream, held);
      expect_ok(world.transport().put_signal(self, 0, nullptr, 0, 64, 1));
      EXPECT_FALSE(held.done) << "it has waited";
      held.released = true;
      expect_behind(world, *region, 64, held.done);
    }
  });
}

TEST_F(CudaIpcStreams, DrainedWaitsForWhatIsEnqueuedAndRings) {
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

// As transport auto has it where there are several hosts.
TEST_F(CudaIpcStreams, DrainedBesideANetworkWaitsForWhatIsEnqueuedWithinTheHost) {
  if (const std::string why = ucx_unavailable(); !why.empty()) GTEST_SKIP() << why;
  run(1, [](World& world) {
    auto near = std::make_unique<CudaIpcTransport>("shm", CudaIpcTransport::WithoutIpc::refused);
    const auto doorbell = near->doorbell();
    auto far = std::make_unique<StagedTransport>(make_ucx_transport({.doorbell = doorbell}));
    MixedTransport mixed(std::move(near), std::move(far), [](int) { return true; });
    const Region region = mixed.allocate(128, Bell::worker, 0);
    const RemoteRegion self = mixed.attach(0, region.key());
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    const auto source = gpu::allocate(0, 64);
    std::atomic<bool> done{false};
    enqueue_slow(stream, done);
    expect_ok(mixed.put(self, 0, source.get(), 64));
    RealWaiter waiter(doorbell, std::make_shared<RealClock>(), std::make_shared<AbortToken>(),
                      50us);
    expect_ok(waiter.wait([&] { return mixed.drained(0); }, world.deadline()));
    EXPECT_TRUE(done);
  });
}

TEST_F(CudaIpcStreams, MoreWordsMayBeEnqueuedThanThereArePlacesForThem) {
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

class StreamWaits : public ::testing::TestWithParam<Backend> {};

TEST_P(StreamWaits, AStreamWaitsForAWord) {
  if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  const auto work = [](World& world) {
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
  };
  EXPECT_THAT(run_processes(2, work, GetParam().defaults), Each(0));
}

/// The fault proxy waits for the stream before it holds a put back.
std::vector<Backend> on_gpus() {
  std::vector<Backend> all = gpu_backends();
  std::erase_if(all, [](const Backend& one) {
    return one.device == gpu::host || one.defaults.faults.has_value();
  });
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, StreamWaits, ::testing::ValuesIn(on_gpus()),
                         [](const auto& info) { return info.param.name; });

// Which loads none: that may wait for the stream.
TEST_F(CudaIpcStreams, AStreamThatWaitsTakesItsFirstKernel) {
  const auto work = [](World& world) {
    const Region here = world.allocate("words", 128, Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "words");
    const Word word = make_word(world.incarnation(), 1);
    if (world.rank() == 0) {
      const gpu::Stream stream(0);
      const gpu::CurrentStream current(stream);
      const auto memory = gpu::allocate(0, sizeof(float));
      const VectorView x{memory.get(), 1, Dtype::float32, 0};
      expect_ok(world.wait_on_stream(here, 64, word));
      kernels::axpy(x, 2, x);
      world.bootstrap().put("enqueued", "");
      expect_ok(stream.synchronize());
    } else {
      (void)world.bootstrap().get("enqueued", 60s);
      expect_ok(world.transport().put_signal(there, 0, nullptr, 0, 64, word));
    }
  };
  run(2, work);
}

TEST_F(CudaIpcStreams, AnAbortReleasesAStreamThatWaits) {
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

// A mapping is closed once the GPU has done its work, which may wait for a word that a peer sends
// after the put.
TEST_F(CudaIpcStreams, APutDoesNotWaitForARegionThatWasLetGo) {
  run(2, [](World& world) {
    const Region first = world.allocate("first", 128, Bell::worker, 0);
    const Region here = world.allocate("here", 128, Bell::worker, 0);
    const Word word = make_word(world.incarnation(), 1);
    if (world.rank() == 0) {
      const gpu::Stream stream(0);
      const gpu::CurrentStream current(stream);
      const auto source = gpu::allocate(0, 64);
      RemoteRegion let_go = world.attach(1, "first");
      const RemoteRegion there = world.attach(1, "here");
      expect_ok(world.transport().put_signal(let_go, 64, source.get(), 64, 0, 1));
      expect_ok(stream.synchronize());
      let_go = {};
      const gpu::Stream waiting(0);
      {
        const gpu::CurrentStream other(waiting);
        expect_ok(world.wait_on_stream(here, 64, word));
      }
      for (Word k = 1; k <= 300; ++k) {
        expect_ok(world.transport().put_signal(there, 64, source.get(), 64, 0, k));
      }
      world.bootstrap().put("put", "");
      expect_ok(waiting.synchronize());
    } else {
      (void)world.bootstrap().get("put", 60s);
      expect_ok(world.transport().put_signal(world.attach(0, "here"), 0, nullptr, 0, 64, word));
    }
    world.bootstrap().fence(60s);
  });
}

}  // namespace
}  // namespace slip::testing
