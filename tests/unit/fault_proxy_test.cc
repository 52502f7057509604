#include "slipstream/transport/fault_proxy.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace slip {
namespace {

using namespace std::chrono_literals;

/// One worker's memory, written at once; keeps the words in the order in which they came.
class Recorder final : public Transport {
 public:
  std::string_view name() const override { return "recorder"; }
  Region allocate(std::size_t bytes, Bell, int) override {
    auto memory = std::make_shared<std::vector<std::byte>>(bytes);
    return {std::shared_ptr<std::byte>(memory, memory->data()), bytes, "key"};
  }
  RemoteRegion attach(int peer, std::string_view) override {
    auto memory = std::make_shared<std::vector<std::byte>>(256);
    RemoteRegion region{peer, 256, Bell::worker, {memory, memory->data()}, nullptr};
    region.wakeup = std::make_shared<const Wakeup>();
    return region;
  }
  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override {
    std::memcpy(to.memory.get() + offset, from, bytes);
    return {};
  }
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t, Word word) override {
    if (bytes > 0) std::memcpy(to.memory.get() + offset, from, bytes);
    words->push_back(word);
    return {};
  }
  bool copies_at_post() const override { return false; }
  bool drained(int) override { return true; }

  std::shared_ptr<std::vector<Word>> words = std::make_shared<std::vector<Word>>();
};

/// Delays until the test says so.
struct Delays {
  Time now{0};
  std::vector<std::pair<Duration, std::function<void()>>> held;
  void release() {
    for (auto& [delay, action] : std::exchange(held, {})) action();
  }
};
class ManualDelayer final : public Delayer {
 public:
  explicit ManualDelayer(Delays& delays) : delays_(delays) {}
  Time now() const override { return delays_.now; }
  void after(Duration delay, std::function<void()> action) override {
    delays_.held.emplace_back(delay, std::move(action));
  }

 private:
  Delays& delays_;
};

class FaultProxyTest : public ::testing::Test {
 protected:
  std::unique_ptr<FaultProxy> make(const FaultPlan& plan, int rank = 0) {
    auto recorder = std::make_unique<Recorder>();
    words = recorder->words;
    return std::make_unique<FaultProxy>(std::move(recorder), plan, rank,
                                        std::make_unique<ManualDelayer>(delays),
                                        [this] { ++wakes; });
  }
  static Status signal(FaultProxy& proxy, const RemoteRegion& to, Word word) {
    return proxy.put_signal(to, 0, nullptr, 0, 0, word);
  }

  Delays delays;
  std::shared_ptr<std::vector<Word>> words;
  int wakes = 0;
};

FaultPlan always_delay() {
  FaultPlan plan;
  plan.delay_probability = 1;
  plan.max_delay = 1ms;
  return plan;
}

TEST_F(FaultProxyTest, without_faults_it_passes_everything_on) {
  const auto proxy = make({});
  const RemoteRegion region = proxy->attach(1, "");
  EXPECT_EQ(proxy->name(), "recorder");
  const std::uint64_t value = 7;
  EXPECT_TRUE(proxy->put(region, 8, &value, sizeof value).ok());
  EXPECT_EQ(std::memcmp(region.memory.get() + 8, &value, sizeof value), 0);
  EXPECT_TRUE(signal(*proxy, region, 5).ok());
  EXPECT_EQ(*words, std::vector<Word>{5});
  EXPECT_TRUE(proxy->drained(1));
}

TEST_F(FaultProxyTest, nothing_can_pass_it_by) { EXPECT_FALSE(make({})->attach(1, "").mapped()); }

TEST_F(FaultProxyTest, a_delayed_put_lands_later_and_is_drained_then) {
  const auto proxy = make(always_delay());
  const RemoteRegion region = proxy->attach(1, "");
  EXPECT_TRUE(signal(*proxy, region, 5).ok());
  EXPECT_TRUE(words->empty());
  EXPECT_FALSE(proxy->drained(1));
  ASSERT_EQ(delays.held.size(), 1u);
  EXPECT_GE(delays.held[0].first, 0ns);
  EXPECT_LE(delays.held[0].first, 1ms);
  delays.release();
  EXPECT_EQ(*words, std::vector<Word>{5});
  EXPECT_TRUE(proxy->drained(1));
  EXPECT_EQ(wakes, 1) << "who waits for drained is woken";
}

TEST_F(FaultProxyTest, a_put_is_copied_when_it_is_posted) {
  const auto proxy = make(always_delay());
  EXPECT_TRUE(proxy->copies_at_post());
  const RemoteRegion region = proxy->attach(1, "");
  std::uint64_t value = 7;
  EXPECT_TRUE(proxy->put(region, 0, &value, sizeof value).ok());
  value = 8;
  delays.release();
  std::memcpy(&value, region.memory.get(), sizeof value);
  EXPECT_EQ(value, 7u);
}

TEST_F(FaultProxyTest, order_to_a_peer_is_kept) {
  FaultPlan plan = always_delay();
  plan.delay_probability = 0.5;
  const auto proxy = make(plan);
  const RemoteRegion region = proxy->attach(1, "");
  std::vector<Word> expected;
  bool any_held = false;
  for (Word word = 1; word <= 200; ++word) {
    EXPECT_TRUE(signal(*proxy, region, word).ok());
    expected.push_back(word);
    any_held = any_held || !delays.held.empty();
    if (word % 7 == 0) delays.release();
  }
  delays.release();
  EXPECT_TRUE(any_held);
  EXPECT_EQ(*words, expected);
}

TEST_F(FaultProxyTest, peers_are_delayed_apart) {
  const auto proxy = make(always_delay());
  const RemoteRegion first = proxy->attach(1, "");
  const RemoteRegion second = proxy->attach(2, "");
  EXPECT_TRUE(signal(*proxy, first, 1).ok());
  EXPECT_TRUE(signal(*proxy, second, 2).ok());
  ASSERT_EQ(delays.held.size(), 2u);
  delays.held[1].second();
  EXPECT_EQ(*words, std::vector<Word>{2});
  EXPECT_TRUE(proxy->drained(2));
  EXPECT_FALSE(proxy->drained(1));
}

TEST_F(FaultProxyTest, a_partition_holds_what_would_cross_it_until_it_ends) {
  FaultPlan plan;
  plan.partitions = {{.begin = 10ms, .end = 30ms, .island = {0, 1}}};
  const auto proxy = make(plan);
  const RemoteRegion inside = proxy->attach(1, "");
  const RemoteRegion outside = proxy->attach(2, "");
  EXPECT_TRUE(signal(*proxy, outside, 1).ok());
  delays.now = 10ms;
  EXPECT_TRUE(signal(*proxy, outside, 2).ok());
  EXPECT_TRUE(signal(*proxy, inside, 3).ok());
  EXPECT_EQ(*words, (std::vector<Word>{1, 3}));
  ASSERT_EQ(delays.held.size(), 1u);
  EXPECT_EQ(delays.held[0].first, 20ms);
  delays.now = 30ms;
  delays.release();
  EXPECT_TRUE(signal(*proxy, outside, 4).ok());
  EXPECT_EQ(*words, (std::vector<Word>{1, 3, 2, 4}));
}

TEST_F(FaultProxyTest, a_delay_that_ends_within_a_partition_releases_nothing) {
  FaultPlan plan = always_delay();
  plan.partitions = {{.begin = 1ms, .end = 50ms, .island = {0}}};
  const auto proxy = make(plan);
  const RemoteRegion region = proxy->attach(1, "");
  EXPECT_TRUE(signal(*proxy, region, 1).ok());
  delays.now = 1ms;
  EXPECT_TRUE(signal(*proxy, region, 2).ok());
  ASSERT_EQ(delays.held.size(), 2u);
  delays.held[0].second();
  EXPECT_TRUE(words->empty());
  delays.held[1].second();
  EXPECT_EQ(*words, (std::vector<Word>{1, 2}));
}

TEST_F(FaultProxyTest, what_is_held_lands_when_the_proxy_ends) {
  auto proxy = make(always_delay());
  const RemoteRegion region = proxy->attach(1, "");
  EXPECT_TRUE(signal(*proxy, region, 1).ok());
  EXPECT_TRUE(signal(*proxy, region, 2).ok());
  proxy.reset();
  EXPECT_EQ(*words, (std::vector<Word>{1, 2}));
  delays.release();  // too late, and harmless
  EXPECT_EQ(words->size(), 2u);
}

TEST_F(FaultProxyTest, a_path_is_cut_after_as_many_puts_as_planned) {
  FaultPlan plan;
  plan.cut_peer = 1;
  plan.cut_after = 3;
  const auto proxy = make(plan);
  const RemoteRegion cut = proxy->attach(1, "");
  const RemoteRegion other = proxy->attach(2, "");
  for (Word word = 1; word <= 3; ++word) EXPECT_TRUE(signal(*proxy, cut, word).ok());
  for (int i = 0; i < 2; ++i) {
    const Status status = signal(*proxy, cut, 4);
    EXPECT_EQ(status.code(), Code::peer_lost);
    EXPECT_EQ(status.peer(), 1);
  }
  EXPECT_TRUE(signal(*proxy, other, 5).ok());
  EXPECT_EQ(*words, (std::vector<Word>{1, 2, 3, 5}));
}

TEST_F(FaultProxyTest, corruption_changes_one_byte_of_a_payload) {
  FaultPlan plan;
  plan.corrupt_probability = 1;
  const auto proxy = make(plan);
  const RemoteRegion region = proxy->attach(1, "");
  const std::vector<std::byte> payload(64, std::byte{1});
  EXPECT_TRUE(proxy->put(region, 0, payload.data(), payload.size()).ok());
  int changed = 0;
  for (std::size_t i = 0; i < payload.size(); ++i) {
    changed += region.memory.get()[i] != payload[i];
  }
  EXPECT_EQ(changed, 1);
  EXPECT_EQ(payload, std::vector<std::byte>(64, std::byte{1})) << "the source is the caller's";
}

TEST_F(FaultProxyTest, faults_are_drawn_from_seed_and_rank) {
  FaultPlan plan;
  plan.corrupt_probability = 0.5;
  const auto image = [&](std::uint64_t seed, int rank) {
    plan.seed = seed;
    const auto proxy = make(plan, rank);
    const RemoteRegion region = proxy->attach(1, "");
    const std::vector<std::byte> zeros(16);
    for (std::size_t i = 0; i < 16; ++i) {
      EXPECT_TRUE(proxy->put(region, 16 * i, zeros.data(), zeros.size()).ok());
    }
    return std::vector<std::byte>(region.memory.get(), region.memory.get() + 256);
  };
  EXPECT_EQ(image(1, 0), image(1, 0));
  EXPECT_NE(image(1, 0), image(2, 0));
  EXPECT_NE(image(1, 0), image(1, 1));
}

TEST_F(FaultProxyTest, bounds_are_checked_when_a_put_is_posted) {
  const auto proxy = make(always_delay());
  const RemoteRegion region = proxy->attach(1, "");  // 256 bytes
  const std::byte byte{};
  EXPECT_EQ(proxy->put(region, 256, &byte, 1).code(), Code::invalid_argument);
  EXPECT_EQ(proxy->put_signal(region, 0, nullptr, 0, 256, 1).code(), Code::invalid_argument);
  EXPECT_EQ(proxy->put_signal(region, 0, nullptr, 0, 252, 1).code(), Code::invalid_argument);
  EXPECT_EQ(proxy->put_signal(region, 0, nullptr, 0, static_cast<std::size_t>(-1), 1).code(),
            Code::invalid_argument);
  EXPECT_TRUE(delays.held.empty());
}

TEST(DelayThread, acts_in_order_of_time_and_before_it_ends) {
  std::vector<int> order;
  {
    const auto delayer = make_delay_thread();
    delayer->after(1min, [&] { order.push_back(2); });
    delayer->after(1ms, [&] { order.push_back(1); });
    delayer->after(1h, [&] { order.push_back(3); });
  }
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

}  // namespace
}  // namespace slip
