// Partial all-reduces of vectors in the memory of GPUs, on every transport that has such memory.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <span>
#include <vector>

#include "averaging.h"
#include "conformance.h"
#include "slipstream/collectives/latest_slots.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/collectives/relay.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/runtime/launch.h"

namespace slip::testing {
namespace {

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

class GpuCollectives : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
    if (GetParam().device == gpu::host) GTEST_SKIP() << "its regions are the host's";
  }
  void run(int workers, const Work& work) { GetParam().run(workers, work, GetParam().defaults); }
};

void upload(VectorView to, const std::vector<float>& from, const gpu::Stream& stream) {
  expect_ok(gpu::copy(to.data, from.data(), to.bytes(), stream));
}

std::vector<float> download(VectorView from, const gpu::Stream& stream) {
  std::vector<float> values(from.count);
  expect_ok(gpu::copy(values.data(), from.data, from.bytes(), stream));
  expect_ok(stream.synchronize());
  return values;
}

/// Means of several groups of three workers, whose vectors are on `device`.
void average(World& world, int device, Algorithm algorithm) {
  constexpr std::size_t count = 150'001;
  const gpu::Stream stream(device);
  const gpu::CurrentStream current(stream);
  PartialAllReduceOptions options;
  options.algorithm = algorithm;
  options.device = device;
  PartialAllReduce partial(world, "mean", count, Dtype::float32, options);
  const auto own = gpu::allocate(device, count * sizeof(float));
  const VectorView users{own.get(), count, Dtype::float32, device};
  std::uint64_t sequence = 0;
  for (const std::vector<int>& members :
       {std::vector{0, 1, 2}, {0, 2}, {1, 2}, {0, 1, 2}, {0, 1, 2}}) {
    ++sequence;
    if (std::find(members.begin(), members.end(), world.rank()) == members.end()) continue;
    std::vector<float> values(count);
    fill<float>(values, world.rank(), sequence);
    const bool is_users = sequence % 2 == 0;
    const VectorView vector = is_users ? users : partial.buffer();
    upload(vector, values, stream);
    const Group group{sequence, members};
    expect_ok(is_users ? partial.mean(group, users) : partial.mean(group));
    const std::vector<float> mean = download(is_users ? users : partial.buffer(), stream);
    ASSERT_TRUE(same_bits<float>(mean, expected_mean<float>(members, count, sequence)))
        << "group " << sequence;
  }
}

TEST_P(GpuCollectives, AMeanIsTheHostsBitForBit) {
  for (const Algorithm algorithm : {Algorithm::one_shot, Algorithm::two_shot}) {
    run(3, [algorithm](World& world) { average(world, 0, algorithm); });
  }
}

// Kernels must not touch memory of a peer then.
TEST(GpuCollectivesApart, AMeanIsTheSameWhereGpusCannotReachEachOther) {
  if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  const std::vector<Backend> all = gpu_backends();
  const auto ipc = std::ranges::find(all, "cuda_ipc", &Backend::name);
  if (!ipc->missing.empty()) GTEST_SKIP() << ipc->missing;
  RunOptions apart = ipc->defaults;
  apart.environment.emplace_back("FAKE_CUDA_DEVICES", "3");
  apart.environment.emplace_back("FAKE_CUDA_PEER_ACCESS", "0");
  for (const Algorithm algorithm :
       {Algorithm::one_shot, Algorithm::two_shot, Algorithm::hierarchical}) {
    const auto work = [algorithm](World& world) { average(world, world.rank(), algorithm); };
    ipc->run(3, work, apart);
    const auto threads = [&work](World&) { launch(3, work); };
    ipc->run(1, threads, apart);
  }
}

TEST_P(GpuCollectives, ARelaySumsAllVectorsOfAChain) {
  run(3, [](World& world) {
    constexpr std::size_t count = 70'001;
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    const Graph chain(3, {{0, 1, {}}, {1, 0, {}}, {1, 2, {}}, {2, 1, {}}});
    Relay relay(world, "relay", neighbourhood(chain, world.rank()), count, Dtype::float32, 0, 0);
    const auto own = gpu::allocate(0, count * sizeof(float));
    const VectorView x{own.get(), count, Dtype::float32, 0};
    const auto of = [](int rank, std::size_t i) {  // whose sums are exact
      return static_cast<float>((i * 7 + static_cast<std::size_t>(rank) * 13) % 1000);
    };
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = of(world.rank(), i);
    upload(x, values, stream);
    for (Iteration round = 0; round < 6; ++round) {
      expect_ok(relay.send(round, x));
      const auto arrived = [&] { return relay.arrived(round); };
      expect_ok(world.wait_until(arrived, world.deadline(), "messages"));
      expect_ok(relay.hold(round, [](int, Iteration) { return false; }));
    }
    EXPECT_EQ(relay.models(), 3);
    std::vector<float> sum = values;
    for (const ConstVectorView& message : relay.messages()) {
      std::vector<float> part(count);
      expect_ok(gpu::copy(part.data(), message.data, message.bytes(), stream));
      for (std::size_t i = 0; i < count; ++i) sum[i] += part[i];
    }
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(sum[i], of(0, i) + of(1, i) + of(2, i)) << i;
    }
  });
}

TEST_P(GpuCollectives, TheLatestMessagesComeWhole) {
  run(2, [](World& world) {
    constexpr std::size_t count = 50'000;
    constexpr Iteration last = 40;
    const gpu::Stream stream(0);
    const gpu::CurrentStream current(stream);
    LatestSlotsOptions options;
    options.bytes = count * sizeof(float);
    options.device = 0;
    const Graph edge(2, {{0, 1, {}}});
    LatestSlots slots(world, "latest", neighbourhood(edge, world.rank()), options);
    const auto memory = gpu::allocate(0, options.bytes);
    const VectorView message{memory.get(), count, Dtype::float32, 0};
    for (Iteration round = 1; world.rank() == 0 && round <= last; ++round) {
      expect_ok(world.wait_until([&] { return slots.has_room(0); }, world.deadline(), "room"));
      upload(message, std::vector<float>(count, static_cast<float>(round)), stream);
      expect_ok(slots.put(0, 0, round, memory.get(), options.bytes));
    }
    for (Iteration seen = 0; world.rank() == 1 && seen < last;) {
      expect_ok(world.wait_until([&] { return slots.any_new(); }, world.deadline(), "a message"));
      expect_ok(slots.collect([](const LatestSlots::Message&) { return true; }));
      for (const LatestSlots::Message& taken : slots.take()) {
        ASSERT_GT(taken.round, seen);
        seen = taken.round;
        std::vector<float> values(count);
        expect_ok(gpu::copy(values.data(), taken.data, options.bytes, stream));
        ASSERT_EQ(values, std::vector<float>(count, static_cast<float>(seen)));
      }
      expect_ok(slots.give_back());
    }
  });
}

TEST_P(GpuCollectives, AVectorOfTheHostIsRefusedInOneLine) {
  run(1, [](World& world) {
    PartialAllReduceOptions options;
    options.device = 0;
    PartialAllReduce partial(world, "mean", 10, Dtype::float32, options);
    std::vector<float> values(10);
    const Status status = partial.mean({1, {0}}, view(std::span(values)));
    EXPECT_EQ(status.code(), Code::invalid_argument);
    EXPECT_EQ(status.message(),
              "rank 0: an all-reduce of memory of GPU 0 was given memory of the host");
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, GpuCollectives, ::testing::ValuesIn(gpu_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace slip::testing
