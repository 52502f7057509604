// Modelled links in real time: nothing may be there before the model says so. How much later it is
// depends on the machine, so nothing here has an upper bound but the tests' patience.
#include "slipstream/transport/paced_transport.h"

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "conformance.h"
#include "slipstream/trainer/hop.h"
#include "slipstream/trainer/trainer.h"
#include "slipstream/transport/shm/shm_transport.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

sim::NetworkOptions link_of(double bytes_per_second, Duration latency) {
  sim::NetworkOptions options;
  options.link = {bytes_per_second, latency};
  return options;
}

template <class Condition>
bool eventually(Condition&& condition) {
  const auto patience = Clock::now() + 60s;
  while (Clock::now() < patience) {
    if (condition()) return true;
    std::this_thread::sleep_for(100us);
  }
  return false;
}

/// Worker 0's transport, behind a network, and the memory of workers 1 and 2.
class PacedTransportTest : public ::testing::Test {
 protected:
  std::unique_ptr<PacedTransport> make(sim::NetworkOptions options) {
    return std::make_unique<PacedTransport>(std::make_unique<ShmTransport>("threads"),
                                            std::make_shared<PacedNetwork>(3, std::move(options)),
                                            0, [this] { ++wakes; });
  }

  ShmTransport receivers{"threads"};
  Region one = receivers.allocate(1 << 20, Bell::worker, gpu::host);
  Region two = receivers.allocate(1 << 20, Bell::worker, gpu::host);
  std::atomic<int> wakes{0};
};

TEST_F(PacedTransportTest, a_put_is_there_when_it_has_been_through_the_link_and_not_before) {
  const auto transport = make(link_of(1e6, 20ms));
  const RemoteRegion region = transport->attach(1, one.key());
  const std::vector<std::byte> payload(10'000, std::byte{7});
  const auto start = Clock::now();
  ASSERT_TRUE(transport->put_signal(region, 64, payload.data(), payload.size(), 0, 5).ok());
  ASSERT_TRUE(eventually([&] { return one.word(0) == 5; }));
  EXPECT_GE(Clock::now() - start, 30ms);
  EXPECT_EQ(std::memcmp(one.data() + 64, payload.data(), payload.size()), 0);
}

TEST_F(PacedTransportTest, a_senders_messages_go_through_its_link_one_after_the_other) {
  const auto transport = make(link_of(1e6, 0ns));
  const RemoteRegion first = transport->attach(1, one.key());
  const RemoteRegion second = transport->attach(2, two.key());
  const std::vector<std::byte> payload(20'000);
  const auto start = Clock::now();
  ASSERT_TRUE(transport->put(first, 64, payload.data(), payload.size()).ok());
  ASSERT_TRUE(transport->put_signal(second, 64, payload.data(), payload.size(), 0, 1).ok());
  ASSERT_TRUE(eventually([&] { return two.word(0) == 1; }));
  EXPECT_GE(Clock::now() - start, 40ms);
}

TEST_F(PacedTransportTest, words_become_visible_in_order_and_after_the_payload) {
  const auto transport = make(link_of(50e6, 100us));
  const RemoteRegion region = transport->attach(1, one.key());
  constexpr Word count = 2000;
  std::atomic<bool> ordered{true};
  std::jthread receiver([&] {
    const bool all = eventually([&] {
      const Word later = one.word(8);
      const Word earlier = one.word(0);
      Word payload = 0;
      std::memcpy(&payload, one.data() + 64 + 8 * earlier, sizeof payload);
      if (earlier < later || payload != earlier) ordered = false;
      return later == count;
    });
    EXPECT_TRUE(all);
  });
  for (Word k = 1; k <= count; ++k) {
    ASSERT_TRUE(transport->put_signal(region, 64 + 8 * k, &k, sizeof k, 0, k).ok());
    ASSERT_TRUE(transport->put_signal(region, 0, nullptr, 0, 8, k).ok());
  }
  receiver.join();
  EXPECT_TRUE(ordered);
}

TEST_F(PacedTransportTest, is_drained_when_all_is_there_and_wakes_who_waits_for_it) {
  // This thread may be stopped for longer than the shorter one.
  for (const Duration latency : {Duration(100ms), Duration(10s)}) {
    const auto transport = make(link_of(0, latency));
    const RemoteRegion region = transport->attach(1, one.key());
    EXPECT_TRUE(transport->drained(1));
    const auto start = Clock::now();
    ASSERT_TRUE(transport->put_signal(region, 0, nullptr, 0, 0, 1).ok());
    ASSERT_TRUE(transport->put_signal(region, 0, nullptr, 0, 0, 2).ok());
    if (transport->drained(1)) {
      ASSERT_GE(Clock::now() - start, latency);
      continue;
    }
    EXPECT_TRUE(transport->drained(2)) << "nothing is on its way there";
    ASSERT_TRUE(eventually([&] { return wakes == 1; }));
    EXPECT_TRUE(transport->drained(1));
    EXPECT_EQ(one.word(0), 2u);
    return;
  }
  FAIL() << "it was stopped too long";
}

TEST_F(PacedTransportTest, nobody_is_woken_who_does_not_wait) {
  auto transport = make(link_of(0, 1ms));
  const RemoteRegion region = transport->attach(1, one.key());
  ASSERT_TRUE(transport->put_signal(region, 0, nullptr, 0, 0, 1).ok());
  ASSERT_TRUE(eventually([&] { return one.word(0) == 1; }));
  transport.reset();
  EXPECT_EQ(wakes, 0);
}

TEST_F(PacedTransportTest, a_put_is_copied_when_it_is_posted_and_nothing_can_pass_it_by) {
  const auto transport = make(link_of(0, 5ms));
  EXPECT_TRUE(transport->copies_at_post());
  const RemoteRegion region = transport->attach(1, one.key());
  EXPECT_FALSE(region.mapped());
  std::uint64_t value = 7;
  ASSERT_TRUE(transport->put_signal(region, 64, &value, sizeof value, 0, 1).ok());
  value = 8;
  ASSERT_TRUE(eventually([&] { return one.word(0) == 1; }));
  EXPECT_EQ(one.word(64), 7u);
}

TEST_F(PacedTransportTest, where_no_link_is_modelled_a_put_is_there_at_once) {
  sim::NetworkOptions options = link_of(1, 1h);
  options.workers_per_host = 2;
  const auto transport = make(options);
  const RemoteRegion inside = transport->attach(1, one.key());
  const std::uint64_t value = 7;
  ASSERT_TRUE(transport->put_signal(inside, 64, &value, sizeof value, 0, 1).ok());
  EXPECT_EQ(one.word(0), 1u);
  EXPECT_EQ(one.word(64), 7u);
  EXPECT_TRUE(transport->drained(1));
}

TEST_F(PacedTransportTest, what_is_on_its_way_lands_in_order_when_the_transport_ends) {
  auto transport = make(link_of(1, 1h));
  const RemoteRegion first = transport->attach(1, one.key());
  const RemoteRegion second = transport->attach(2, two.key());
  for (Word k = 1; k <= 100; ++k) {
    ASSERT_TRUE(transport->put_signal(k % 2 == 0 ? first : second, 0, nullptr, 0, 0, k).ok());
  }
  EXPECT_EQ(one.word(0), 0u);
  transport.reset();
  EXPECT_EQ(one.word(0), 100u);
  EXPECT_EQ(two.word(0), 99u);
}

TEST_F(PacedTransportTest, a_put_out_of_bounds_is_refused_when_it_is_posted) {
  const auto transport = make(link_of(0, 1ms));
  const RemoteRegion region = transport->attach(1, one.key());
  const std::array<std::byte, 16> data{};
  EXPECT_EQ(transport->put(region, region.bytes - 8, data.data(), 16).code(),
            Code::invalid_argument);
  EXPECT_EQ(transport->put_signal(region, 0, nullptr, 0, region.bytes, 1).code(),
            Code::invalid_argument);
  EXPECT_EQ(transport->put_signal(region, 0, nullptr, 0, 4, 1).code(), Code::invalid_argument);
  EXPECT_TRUE(transport->drained(1));
}

TEST_F(PacedTransportTest, a_regions_handle_keeps_the_memory_while_a_put_is_on_its_way) {
  auto transport = make(link_of(0, 5ms));
  Region gone = receivers.allocate(4096, Bell::worker, gpu::host);
  {
    const RemoteRegion region = transport->attach(1, gone.key());
    ASSERT_TRUE(transport->put_signal(region, 0, nullptr, 0, 0, 1).ok());
  }
  gone = {};
  EXPECT_TRUE(eventually([&] { return transport->drained(1); }));
}

// ---- Worlds.

/// Workers 0 and 1 send `bytes` each to worker 2 at once.
void send_to_one(World& world, std::size_t bytes, Duration at_least) {
  const Region inbox = world.allocate("inbox", 64 + 2 * bytes);
  const std::vector<std::byte> payload(bytes, std::byte{1});
  const auto sender = static_cast<std::size_t>(world.rank());
  const auto remote =
      world.rank() < 2 ? std::optional(world.attach(2, "inbox")) : std::optional<RemoteRegion>();
  world.bootstrap().fence(60s);
  const auto start = Clock::now();  // rank 2's may be the earliest or the latest
  world.bootstrap().fence(60s);     // all have taken theirs before anyone sends
  if (remote) {
    const Status sent = world.transport().put_signal(*remote, 64 + sender * bytes, payload.data(),
                                                     bytes, 8 * sender, 1);
    EXPECT_TRUE(sent.ok()) << sent.message();
    return;
  }
  const Status arrived = world.wait_until([&] { return inbox.word(0) == 1 && inbox.word(8) == 1; },
                                          world.deadline(), "two messages");
  EXPECT_TRUE(arrived.ok()) << arrived.message();
  EXPECT_GE(Clock::now() - start, at_least);
  EXPECT_EQ(std::count(inbox.data() + 64, inbox.data() + 64 + 2 * bytes, std::byte{1}),
            static_cast<std::ptrdiff_t>(2 * bytes));
}

TEST(PacedWorlds, threads_share_the_receivers_nic) {
  LaunchOptions options;
  options.world.network = link_of(1e6, 5ms);
  launch(
      3, [](World& world) { send_to_one(world, 20'000, 45ms); }, options);
}

TEST(PacedWorlds, processes_have_a_link_each) {
  testing::RunOptions options;
  options.world.network = link_of(1e6, 5ms);
  const auto ends = testing::run_processes(
      3, [](World& world) { send_to_one(world, 20'000, 25ms); }, options);
  for (const int end : ends) EXPECT_EQ(end, 0);
}

TEST(PacedWorlds, a_network_that_does_not_fit_the_world_is_refused) {
  LaunchOptions options;
  options.world.network = link_of(1e6, 5ms);
  options.world.network.slow = {{3, 2.0}};
  EXPECT_THROW(launch(
                   3, [](World&) {}, options),
               Error);
}

TEST(PacedWorlds, hop_goes_no_faster_than_its_links_and_to_the_same_mean) {
  constexpr std::size_t dimension = 2500;  // 10 kB: 10 ms a message
  constexpr Iteration iterations = 5;
  const auto run = [&](sim::NetworkOptions network, Duration at_least) {
    std::vector<float> mean;
    const auto start = Clock::now();
    LaunchOptions launch_options;
    launch_options.world.network = std::move(network);
    launch(
        3,
        [&](World& world) {
          TrainerOptions options;
          options.iterations = iterations;
          options.own_start = true;
          Trainer trainer(world, {{nullptr, dimension, Dtype::float32}}, Hop{}, options);
          const VectorView x = trainer.parameters();
          std::fill_n(static_cast<float*>(x.data), dimension, 3.0F * world.rank());
          while (trainer.running()) {
            std::fill_n(static_cast<float*>(trainer.gradient().data), dimension, 0.0F);
            const Status status = trainer.step(trainer.gradient());
            ASSERT_TRUE(status.ok()) << status.message();
          }
          EXPECT_GE(Clock::now() - start, at_least);
          trainer.average();
          if (world.rank() == 0) {
            mean.assign(static_cast<float*>(x.data), static_cast<float*>(x.data) + dimension);
          }
        },
        launch_options);
    return mean;
  };
  const std::vector<float> mean = run({}, 0ms);
  EXPECT_FLOAT_EQ(mean.at(0), 3.0F);
  EXPECT_EQ(run(link_of(1e6, 1ms), (2 * iterations - 1) * 10ms), mean) << "each sends to two";
}

}  // namespace
}  // namespace slip
