// Puts out of memory of a GPU that cannot go on: behind a stream that waits, and to a peer that was
// given up.

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "conformance.h"
#include "driver.h"
#include "ends.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/runtime/progress.h"
#include "slipstream/transport/staged_transport.h"
#include "slipstream/transport/ucx/ucx_transport.h"

namespace slip::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::Each;
using ::testing::HasSubstr;

/// More than a transport holds for a stream to come to.
constexpr std::size_t many_bytes = std::size_t{12} << 20;
constexpr int many_words = 300;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

std::vector<Backend> on_gpus() {
  std::vector<Backend> all = gpu_backends();
  std::erase_if(all, [](const Backend& one) {
    return one.device == gpu::host || one.defaults.faults.has_value();
  });
  return all;
}

/// A worker whose stream waits for a word that nobody sends, with a peer that only lends memory.
class PutsBehindAStreamThatWaits : public ::testing::TestWithParam<Backend> {
 protected:
  struct Ends {
    const std::byte* source;  // on the GPU
    RemoteRegion gpus;
    RemoteRegion hosts;
  };
  using Puts = std::function<void(World&, const Ends&)>;

  static void run(Duration wait_timeout, const Puts& puts) {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
    const auto work = [&](World& world) {
      const Region gpus = world.allocate("gpu's", many_bytes, Bell::worker, 0);
      const Region hosts = world.allocate("host's", 128);
      const int peer = 1 - world.rank();
      const auto source = gpu::allocate(0, many_bytes);
      const Ends ends{source.get(), world.attach(peer, "gpu's"), world.attach(peer, "host's")};
      world.bootstrap().fence(60s);
      if (world.rank() == 0) {
        const gpu::Stream stream(0);
        const gpu::CurrentStream current(stream);
        expect_ok(world.wait_on_stream(gpus, 64, make_word(world.incarnation(), 1)));
        puts(world, ends);
        world.abort({Code::aborted, "the stream need not wait any more"});
        world.bootstrap().put("over", "");
      } else {
        (void)world.bootstrap().get("over", 60s);
      }
    };
    RunOptions options = GetParam().defaults;
    options.world.wait_timeout = wait_timeout;
    EXPECT_THAT(run_processes(2, work, options), Each(0));
  }
};

TEST_P(PutsBehindAStreamThatWaits, EndAtTheDeadline) {
  run(300ms, [](World& world, const Ends& ends) {
    const std::uint64_t value = 1;
    const Status of_the_host = world.transport().put(ends.hosts, 0, &value, sizeof value);
    EXPECT_EQ(of_the_host.code(), Code::timeout) << of_the_host.message();
    EXPECT_THAT(of_the_host.message(),
                HasSubstr("GPU 0: waited 0.3 s to put what follows the work on a stream"));
    Status word;
    for (int i = 1; word && i <= many_words; ++i) {
      word = world.transport().put_signal(ends.gpus, 0, nullptr, 0, 0, static_cast<Word>(i));
    }
    EXPECT_EQ(word.code(), Code::timeout) << word.message();
    const Status payload = world.transport().put(ends.gpus, 0, ends.source, many_bytes);
    const bool is_staged = !ends.gpus.mapped();
    EXPECT_EQ(payload.code(), is_staged ? Code::timeout : Code::ok) << payload.message();
  });
}

TEST_P(PutsBehindAStreamThatWaits, EndUponAnAbort) {
  run(60s, [](World& world, const Ends& ends) {
    const std::jthread aborting([&] {
      std::this_thread::sleep_for(20ms);
      world.abort({Code::aborted, "enough"});
    });
    const std::uint64_t value = 1;
    // The abort releases the stream, too, which may come first.
    const Status status = world.transport().put(ends.hosts, 0, &value, sizeof value);
    EXPECT_TRUE(status.ok() || status.code() == Code::aborted) << status.message();
  });
}

// One place is taken for as long as that stream waits; the others are enough.
TEST_P(PutsBehindAStreamThatWaits, LeaveRoomForThoseOnOtherStreams) {
  run(60s, [](World& world, const Ends& ends) {
    const auto put = [&](int i) {
      return world.transport().put_signal(ends.gpus, 64, ends.source, 64, 0, static_cast<Word>(i));
    };
    expect_ok(put(1));
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    Status status;
    for (int i = 2; status && i <= 2 * many_words; ++i) status = put(i);
    expect_ok(status);
  });
}

// As the answers of services, which others wait for.
TEST_P(PutsBehindAStreamThatWaits, DoNotWaitWhereTheyAreDetached) {
  run(300ms, [](World& world, const Ends& ends) {
    const gpu::Detached detached;
    const std::uint64_t value = 1;
    for (Word k = 1; k <= many_words; ++k) {
      expect_ok(world.transport().put_signal(ends.hosts, 8, &value, sizeof value, 0, k));
      expect_ok(world.transport().put_signal(ends.hosts, 0, nullptr, 0, 64, k));
    }
  });
}

// Here the thread that drives is the one that waits for room.
TEST_P(PutsBehindAStreamThatWaits, LetTheWordComeThatItWaitsFor) {
  if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  const auto work = [](World& world) {
    const Region here = world.allocate("slot", many_bytes, Bell::worker, 0);
    const RemoteRegion there = world.attach(1 - world.rank(), "slot");
    const Word word = make_word(world.incarnation(), 1);
    if (world.rank() == 0) {
      const auto source = gpu::allocate(0, many_bytes);
      const gpu::Stream stream(0);
      {
        const gpu::CurrentStream current(stream);
        expect_ok(world.wait_on_stream(here, 64, word));
      }
      std::atomic<bool> put{false};
      const auto service = world.progress().serve(world.transport(), [&] {
        if (put) return false;
        const gpu::CurrentStream current(stream);
        world.bootstrap().put("waiting", "");
        expect_ok(world.transport().put(there, 0, source.get(), many_bytes));
        put = true;
        return false;
      });
      world.progress().serve_soon();
      while (!put) std::this_thread::sleep_for(1ms);
    } else {
      (void)world.bootstrap().get("waiting", 60s);
      expect_ok(world.transport().put_signal(there, 0, nullptr, 0, 64, word));
    }
    world.bootstrap().fence(60s);
  };
  RunOptions options = GetParam().defaults;
  options.world.wait_timeout = 60s;
  EXPECT_THAT(run_processes(2, work, options), Each(0));
}

INSTANTIATE_TEST_SUITE_P(All, PutsBehindAStreamThatWaits, ::testing::ValuesIn(on_gpus()),
                         [](const auto& info) { return info.param.name; });

/// Why nothing can be staged here; empty: it can.
std::string nothing_staged() {
  const std::string missing = gpu_backends().front().missing;
  return missing.empty() ? ucx_unavailable() : missing;
}

TEST(StagedPuts, ToAPeerThatWasGivenUpFailAndTheOthersGoOn) {
  if (const std::string why = nothing_staged(); !why.empty()) GTEST_SKIP() << why;
  const auto work = [](World& world) {
    End end(world, std::make_unique<StagedTransport>(make_ucx_transport({.rank = world.rank()})));
    const Region here = end.transport->allocate(128, Bell::worker, 0);
    world.bootstrap().put("here/" + std::to_string(world.rank()), here.key());
    if (world.rank() > 0) {
      if (world.rank() == 2) expect_ok(end.wait([&] { return here.word(64) == 3; }));
      world.bootstrap().fence(60s);
      return;
    }
    const RemoteRegion lost = end.attach(1, "here");
    const RemoteRegion other = end.attach(2, "here");
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    const auto source = gpu::allocate(0, 64);
    // One that is on its way meanwhile, too.
    expect_ok(end.transport->put_signal(lost, 0, source.get(), 64, 64, 1));
    end.network->disconnect(1);
    EXPECT_EQ(end.transport->put(lost, 0, source.get(), 64).code(), Code::peer_lost);
    EXPECT_EQ(end.transport->put_signal(lost, 0, nullptr, 0, 64, 2).code(), Code::peer_lost);
    expect_ok(end.transport->put_signal(other, 0, source.get(), 64, 64, 3));
    world.bootstrap().fence(60s);
  };
  RunOptions options;
  options.world.transport = "shm";
  EXPECT_THAT(run_processes(3, work, options), Each(0));
}

// It is stored when the GPU has come to it.
TEST(StagedPuts, AWordMayComeForARegionThatIsFreedMeanwhile) {
  if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  if (const std::string why = nothing_staged(); !why.empty()) GTEST_SKIP() << why;
  const auto work = [](World& world) {
    if (world.rank() == 0) setenv("FAKE_CUDA_DELAY_US", "200000", 1);
    End end(world, std::make_unique<StagedTransport>(make_ucx_transport({.rank = world.rank()})));
    if (world.rank() == 0) {
      const Region gpus = end.transport->allocate(128, Bell::worker, 0);
      world.bootstrap().put("gpu/0", gpus.key());
      Region hosts = end.allocate("host", 1 << 20);
      (void)world.bootstrap().get("put", 60s);
      std::this_thread::sleep_for(50ms);  // until what was put has come
      hosts = {};
      expect_ok(gpu::synchronize(0));
    } else {
      const auto source = gpu::allocate(0, 64);
      const RemoteRegion gpus = end.attach(0, "gpu"), hosts = end.attach(0, "host");
      for (int i = 0; i < 5; ++i) expect_ok(end.transport->put(gpus, 0, source.get(), 64));
      expect_ok(end.transport->put_signal(hosts, 0, nullptr, 0, 64, 1));
      expect_ok(gpu::synchronize(0));
      std::this_thread::sleep_for(50ms);  // until it is on its way
    }
    if (world.rank() == 1) world.bootstrap().put("put", "");  // and let go of
    world.bootstrap().fence(60s);
  };
  RunOptions options;
  options.world.transport = "shm";
  options.environment = {{"UCX_TLS", "tcp"}};
  EXPECT_THAT(run_processes(2, work, options), Each(0));
}

// The piece that it was to be sent from is still copied to, and no other put may have it.
TEST(StagedPuts, WhatCannotBeSentAfterItsCopyEndsThoseThatFollow) {
  if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  if (const std::string why = nothing_staged(); !why.empty()) GTEST_SKIP() << why;
  const auto work = [](World& world) {
    End end(world, std::make_unique<StagedTransport>(make_ucx_transport({.rank = world.rank()})));
    const Region here = end.transport->allocate(128, Bell::worker, 0);
    const RemoteRegion self = end.transport->attach(world.rank(), here.key());
    const auto source = gpu::allocate(0, 64);
    const auto put = [&] { return end.transport->put(self, 0, source.get(), 64); };
    const std::string why = "GPU 0: enqueuing a call: operation not permitted";
    fail_calls("cuLaunchHostFunc");
    EXPECT_THAT(put().message(), HasSubstr(why));
    fail_calls(nullptr);
    EXPECT_THAT(put().message(), HasSubstr(why));
  };
  RunOptions options;
  options.world.transport = "shm";
  EXPECT_THAT(run_processes(1, work, options), Each(0));
}

}  // namespace
}  // namespace slip::testing
