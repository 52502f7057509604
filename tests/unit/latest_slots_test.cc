#include "slipstream/collectives/latest_slots.h"

#include <gmock/gmock.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::Backend;
using ::testing::HasSubstr;
using Keep = LatestSlots::Keep;
using Message = LatestSlots::Message;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

std::vector<std::byte> pattern(std::size_t bytes, int kind, Iteration round) {
  Random random(key({static_cast<std::uint64_t>(kind), round}));
  std::vector<std::byte> message(bytes);
  for (std::byte& byte : message) byte = std::byte(random());
  return message;
}

constexpr std::size_t bytes = 1000;

void put(LatestSlots& slots, int kind, Iteration round) {
  expect_ok(slots.put(0, kind, round, pattern(bytes, kind, round).data(), bytes));
}

void expect_message(const Message& m, int kind, Iteration round) {
  EXPECT_EQ(m.kind, kind);
  EXPECT_EQ(m.round, round);
  EXPECT_EQ(std::memcmp(m.data, pattern(bytes, kind, round).data(), bytes), 0) << "torn";
}

bool all(const Message&) { return true; }

class LatestSlotsTest : public ::testing::TestWithParam<Backend> {
 protected:
  /// Rank 0 sends to rank 1.
  void run_edge(int kinds, const std::function<void(World&, LatestSlots&)>& sender,
                const std::function<void(World&, LatestSlots&)>& receiver) {
    GetParam().run(
        2,
        [&](World& world) {
          const Graph edge(2, {{0, 1, {}}});
          LatestSlots slots(world, "slots", testing::neighbourhood(edge, world.rank()),
                            {.bytes = bytes, .kinds = kinds});
          (world.rank() == 0 ? sender : receiver)(world, slots);
          world.bootstrap().fence(60s);
        },
        GetParam().defaults);
  }
};

void await_new(World& world, const LatestSlots& slots) {
  expect_ok(world.wait_until([&] { return slots.any_new(); }, world.deadline(), "a message"));
}
void await_room(World& world, const LatestSlots& slots) {
  expect_ok(world.wait_until([&] { return slots.has_room(0); }, world.deadline(), "room"));
}
/// Collects until a message of that round has come.
void await_round(World& world, LatestSlots& slots, Iteration round) {
  for (bool here = false; !here;) {
    await_new(world, slots);
    expect_ok(slots.collect([&](const Message& m) { return here |= m.round == round, true; }));
  }
}

TEST_P(LatestSlotsTest, a_message_arrives_whole_under_its_round_and_kind_and_is_taken_once) {
  run_edge(
      3,
      [](World&, LatestSlots& slots) {
        put(slots, 2, 7);
        put(slots, 0, 7);
      },
      [](World& world, LatestSlots& slots) {
        for (int come = 0; come < 2;) {
          await_new(world, slots);
          expect_ok(slots.collect([&](const Message&) { return ++come, true; }));
        }
        const auto messages = slots.take();
        ASSERT_EQ(messages.size(), 2u);
        expect_message(messages[0], 0, 7);
        expect_message(messages[1], 2, 7);
        expect_ok(slots.give_back());
        EXPECT_TRUE(slots.take().empty());
        EXPECT_FALSE(slots.any_new());
      });
}

TEST_P(LatestSlotsTest, a_newer_message_replaces_one_that_was_not_read) {
  run_edge(
      1,
      [](World& world, LatestSlots& slots) {
        for (Iteration round = 0; round < 20; ++round) {
          await_room(world, slots);
          put(slots, 0, round);
        }
      },
      [](World& world, LatestSlots& slots) {
        await_round(world, slots, 19);
        const auto messages = slots.take();
        ASSERT_EQ(messages.size(), 1u);
        expect_message(messages[0], 0, 19);
        EXPECT_EQ(slots.replaced(), 19u);
        EXPECT_EQ(slots.replaced(), 0u);
      });
}

TEST_P(LatestSlotsTest, what_is_read_is_not_written) {
  run_edge(
      1,
      [](World& world, LatestSlots& slots) {
        put(slots, 0, 0);
        world.bootstrap().fence(60s);  // the first is being read
        put(slots, 0, 1);
        EXPECT_FALSE(slots.has_room(0));
        world.bootstrap().fence(60s);
        await_room(world, slots);  // has been read
        put(slots, 0, 2);
      },
      [](World& world, LatestSlots& slots) {
        await_round(world, slots, 0);
        const auto messages = slots.take();
        ASSERT_EQ(messages.size(), 1u);
        world.bootstrap().fence(60s);
        await_round(world, slots, 1);
        expect_message(messages[0], 0, 0);
        world.bootstrap().fence(60s);
        expect_ok(slots.give_back());
        await_round(world, slots, 2);
        ASSERT_EQ(slots.take().size(), 1u);
      });
}

TEST_P(LatestSlotsTest, a_sender_learns_what_was_collected) {
  run_edge(
      2,
      [](World& world, LatestSlots& slots) {
        std::size_t number = 0;
        const auto message = pattern(bytes, 1, 3);
        expect_ok(slots.put(0, 1, 3, message.data(), bytes, &number));
        EXPECT_FALSE(slots.arrived(number));
        world.bootstrap().fence(60s);
        expect_ok(
            world.wait_until([&] { return slots.arrived(number); }, world.deadline(), "an answer"));
      },
      [](World& world, LatestSlots& slots) {
        world.bootstrap().fence(60s);
        await_round(world, slots, 3);
      });
}

TEST_P(LatestSlotsTest, the_newest_may_be_kept_until_a_newer_one_comes) {
  run_edge(
      1,
      [](World& world, LatestSlots& slots) {
        put(slots, 0, 0);
        world.bootstrap().fence(60s);
        for (Iteration round = 1; round < 3; ++round) {
          await_room(world, slots);
          put(slots, 0, round);
        }
      },
      [](World& world, LatestSlots& slots) {
        await_round(world, slots, 0);
        for (int again = 0; again < 3; ++again) {
          const auto messages = slots.take();
          ASSERT_EQ(messages.size(), 1u);
          expect_message(messages[0], 0, 0);
          if (again == 2) {  // a newer one comes while this is read
            world.bootstrap().fence(60s);
            await_round(world, slots, 1);
          }
          expect_ok(slots.give_back(Keep::newest));
        }
        await_round(world, slots, 2);
        const auto messages = slots.take();
        ASSERT_EQ(messages.size(), 1u);
        expect_message(messages[0], 0, 2);
        EXPECT_EQ(slots.replaced(), 1u) << "the first was taken before it gave way";
      });
}

TEST_P(LatestSlotsTest, a_lost_message_replaces_nothing_and_its_slot_is_given_back) {
  run_edge(
      1,
      [](World& world, LatestSlots& slots) {
        for (Iteration round = 0; round < 6; ++round) {
          await_room(world, slots);
          put(slots, 0, round);
        }
      },
      [](World& world, LatestSlots& slots) {
        for (Iteration come = 0; come < 6;) {
          await_new(world, slots);
          expect_ok(slots.collect([&](const Message& m) { return ++come, m.round == 2; }));
        }
        const auto messages = slots.take();
        ASSERT_EQ(messages.size(), 1u);
        expect_message(messages[0], 0, 2);
      });
}

// Where two messages land while `collect` is between their slots it sees the second one first.
TEST_P(LatestSlotsTest, what_is_seen_after_a_newer_message_was_taken_is_given_back) {
  const auto word = [](int incarnation, Iteration round) {
    return make_word(static_cast<std::uint16_t>(incarnation), round * LatestSlots::most_kinds);
  };
  // The sender says itself what lands in which slot, and when.
  const auto sender = [&](World& world) {
    const Region answers = world.allocate("slots/answers", 4096);
    const RemoteRegion slots = world.attach(1, "slots/slots");
    const auto land = [&](std::size_t slot, Word message) {
      expect_ok(world.transport().put_signal(slots, 0, nullptr, 0, slot * sizeof(Word), message));
    };
    for (const Iteration older : {4, 6}) {
      land(1, word(1, older + 1));
      world.bootstrap().fence(60s);  // has been taken
      land(0, word(1, older));
      const auto freed = [&] { return answers.word(sizeof(Word)) == word(1, older); };
      expect_ok(world.wait_until(freed, world.deadline(), "the older one's slot"));
      world.bootstrap().fence(60s);
    }
    land(0, word(2, 0));  // its next life begins anew
    world.bootstrap().fence(60s);
  };
  const auto receiver = [](World& world) {
    LatestSlots slots(world, "slots", testing::neighbourhood(Graph(2, {{0, 1, {}}}), 1),
                      {.bytes = bytes});
    const auto expect_round = [](std::span<const Message> messages, Iteration round) {
      ASSERT_EQ(messages.size(), 1u);
      EXPECT_EQ(messages[0].round, round);
    };
    for (const Iteration older : {4, 6}) {
      await_round(world, slots, older + 1);
      expect_round(slots.take(), older + 1);
      const bool used = older == 6;
      if (used) expect_ok(slots.give_back());
      world.bootstrap().fence(60s);
      await_round(world, slots, older);
      if (!used) {
        expect_ok(slots.give_back(Keep::newest));
        expect_round(slots.take(), older + 1);
        expect_ok(slots.give_back());
      }
      EXPECT_TRUE(slots.take().empty());
      EXPECT_EQ(slots.replaced(), 1u);
      world.bootstrap().fence(60s);
    }
    await_round(world, slots, 0);
    expect_round(slots.take(), 0);
    world.bootstrap().fence(60s);
  };
  GetParam().run(
      2, [&](World& world) { world.rank() == 0 ? sender(world) : receiver(world); },
      GetParam().defaults);
}

TEST_P(LatestSlotsTest, words_that_nobody_may_write_are_bad_data) {
  GetParam().run(
      2,
      [&](World& world) {
        const Graph edge(2, {{0, 1, {}}});
        // The sender believes that there are more kinds than the receiver.
        const auto there = testing::neighbourhood(edge, world.rank());
        if (world.rank() == 0) {
          const Region answers = world.allocate("slots/answers", 4096);
          const RemoteRegion slots = world.attach(1, "slots/slots");
          expect_ok(world.transport().put_signal(slots, 0, nullptr, 0, 0, make_word(1, 5)));
          world.bootstrap().fence(60s);
          return;
        }
        LatestSlots slots(world, "slots", there, {.bytes = bytes, .kinds = 3});
        await_new(world, slots);
        const Status status = slots.collect(all);
        EXPECT_EQ(status.code(), Code::bad_data);
        EXPECT_EQ(status.peer(), 0);
        EXPECT_THAT(status.message(), HasSubstr("kind 5; there are 3"));
        world.bootstrap().fence(60s);
      },
      GetParam().defaults);
}

INSTANTIATE_TEST_SUITE_P(Backends, LatestSlotsTest, ::testing::ValuesIn(testing::backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace slip
