// No word ever runs ahead of its payload: many payloads of many packets, over every backend.
// SLIP_TEST_ORDER_ROUNDS says how many.

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "conformance.h"
#include "payload.h"

namespace slip::testing {
namespace {

/// Each backend by itself.
std::vector<Backend> plain_backends() {
  std::vector<Backend> result = all_backends();
  std::erase_if(result, [](const Backend& one) {
    return one.defaults.faults || !one.defaults.world.network.instant();
  });
  return result;
}

class Order : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }
};

// Out of registered memory, by turns with four under way, and with nothing before it under way. The
// word lies right behind its payload, so that over verbs it may then travel in one write with it.
TEST_P(Order, no_word_overtakes_its_payload) {
  const std::uint64_t count = order_rounds();
  const auto work = [count](World& world) {
    constexpr std::size_t line = 64;  // a word, the peer's confirmation
    constexpr std::size_t slots = 4;
    constexpr std::array<std::size_t, 4> lengths = {3, 700, 4096, 1500};  // in words
    constexpr std::size_t slot_bytes = line + 8 * 4096;
    const Region here = world.allocate("slots", line + slots * slot_bytes);
    const RemoteRegion there = world.attach(1 - world.rank(), "slots");
    Transport& transport = world.transport();
    const Region source = transport.allocate(slots * slot_bytes);
    std::uint64_t violations = 0;
    for (std::uint64_t round = 1; round <= count; ++round) {
      const std::size_t at = line + round % slots * slot_bytes;
      const std::size_t words = lengths[round % lengths.size()];
      Status status;
      if (world.rank() == 0) {
        // Its slot is free, here as there, once the round that used it before is confirmed.
        const std::uint64_t under_way = round / 64 % 2 == 0 ? slots : 1;
        const auto free = [&] { return here.word(0) + under_way >= round; };
        status = world.wait_until(free, world.deadline(), "a slot");
        std::byte* const from = source.data() + at - line;
        fill(from, words, round);
        if (status) {
          status = transport.put_signal(there, at, from, 8 * words, at + 8 * words, round);
        }
      } else {
        const auto came = [&] { return here.word(at + 8 * words) == round; };
        status = world.wait_until(came, world.deadline(), "a word");
        violations += !is_whole(here.data() + at, words, round);
        if (status) status = transport.put_signal(there, 0, nullptr, 0, 0, round);
      }
      ASSERT_TRUE(status.ok()) << "round " << round << ": " << status.message();
    }
    EXPECT_EQ(violations, 0u) << "of " << count;
    world.goodbye();
  };
  GetParam().run(2, work, GetParam().defaults);
}

INSTANTIATE_TEST_SUITE_P(Backends, Order, ::testing::ValuesIn(plain_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace slip::testing
