#include "slipstream/runtime/remote_ring.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::Backend;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Mapped memory, staged messages (the fault proxy lets nobody map), and both in virtual time.
std::vector<Backend> ring_backends() {
  std::vector<Backend> chosen;
  for (Backend& backend : testing::backends()) {
    if (backend.name.starts_with("shm")) continue;
    if (backend.name == "threads") {
      chosen.push_back(backend);
      backend.name = "threads_staged";
      backend.defaults.faults.emplace();
    }
    chosen.push_back(backend);
  }
  return chosen;
}

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

/// A message that says which it is, of a length drawn from its number.
std::string numbered(std::uint64_t number, std::size_t longest) {
  Random random(number);
  std::string text(random.below(longest + 1), '\0');
  for (char& c : text) c = static_cast<char>(random.below(256));
  return text;
}

/// The sender is rank 0, the receiver rank 1.
class Sending {
 public:
  Sending(World& world, RingSender& ring) : world(world), ring(ring) {}
  void send(const std::string& text) { expect_ok(ring.send(bytes(text), world.deadline())); }
  /// Claims and fills as many messages of `size` as there is room for.
  int fill(std::size_t size) {
    int count = 0;
    for (std::byte* room; (room = ring.claim(size)) != nullptr; ++count) {
      std::fill_n(room, size, std::byte(count));
      expect_ok(ring.commit());
    }
    return count;
  }
  /// Both sides have come here.
  void meet() { world.bootstrap().fence(60s); }

  World& world;
  RingSender& ring;
};

class Receiving {
 public:
  Receiving(World& world, RingReceiver& ring) : world(world), ring(ring) {}

  /// Waits for the next messages, at most `limit`.
  std::vector<std::string> receive(int limit = 1000) {
    expect_ok(world.wait_until([&] { return ring.ready(); }, world.deadline(), "a message"));
    return poll(limit);
  }
  /// Those that are there.
  std::vector<std::string> poll(int limit = 1000) {
    std::vector<std::string> messages;
    int count = 0;
    status = ring.poll(
        [&](std::span<const std::byte> message) {
          messages.emplace_back(reinterpret_cast<const char*>(message.data()), message.size());
        },
        limit, &count);
    EXPECT_EQ(static_cast<std::size_t>(count), messages.size());
    return messages;
  }
  std::vector<std::string> receive_all(std::size_t count) {
    std::vector<std::string> all;
    while (all.size() < count && status.ok() && !world.aborted()) {
      for (std::string& text : receive()) all.push_back(std::move(text));
    }
    return all;
  }
  void meet() { world.bootstrap().fence(60s); }

  World& world;
  RingReceiver& ring;
  Status status;
};

class RemoteRing : public ::testing::TestWithParam<Backend> {
 protected:
  void run(const testing::Work& work) { GetParam().run(2, work, GetParam().defaults); }

  void run_pair(std::size_t capacity, const std::function<void(Sending&)>& send,
                const std::function<void(Receiving&)>& receive) {
    run([&](World& world) {
      if (world.rank() == 0) {
        RingSender ring(world, 1, "ring", capacity);
        Sending sending(world, ring);
        send(sending);
        sending.meet();
      } else {
        RingReceiver ring(world, 0, "ring", capacity);
        Receiving receiving(world, ring);
        receive(receiving);
        receiving.meet();
      }
    });
  }
};

TEST_P(RemoteRing, messages_arrive_whole_and_in_order) {
  run_pair(
      1024,
      [](Sending& s) {
        for (const char* text : {"one", "two", "three"}) s.send(text);
      },
      [](Receiving& r) { EXPECT_THAT(r.receive_all(3), ElementsAre("one", "two", "three")); });
}

TEST_P(RemoteRing, an_empty_message_is_a_message) {
  run_pair(
      64,
      [](Sending& s) {
        s.send("");
        s.send("");
      },
      [](Receiving& r) { EXPECT_THAT(r.receive_all(2), ElementsAre("", "")); });
}

TEST_P(RemoteRing, every_length_wraps_at_every_place) {
  static constexpr std::size_t count = 3000;
  for (const std::size_t capacity : {64u, 128u, 256u}) {
    run_pair(
        capacity,
        [](Sending& s) {
          for (std::uint64_t i = 0; i < count; ++i) s.send(numbered(i, s.ring.max_message()));
        },
        [capacity](Receiving& r) {
          const auto messages = r.receive_all(count);
          ASSERT_EQ(messages.size(), count);
          for (std::uint64_t i = 0; i < count; ++i) {
            ASSERT_EQ(messages[i], numbered(i, capacity / 4 - 8)) << i;
          }
        });
  }
}

TEST_P(RemoteRing, the_longest_message_fits_and_a_longer_one_is_refused) {
  run_pair(
      256,
      [](Sending& s) {
        const std::string longest(s.ring.max_message(), 'x');
        EXPECT_EQ(s.ring.claim(longest.size() + 1), nullptr);
        const Status status = s.ring.send(bytes(longest + "x"), s.world.deadline());
        EXPECT_EQ(status.code(), Code::invalid_argument);
        EXPECT_THAT(status.message(), HasSubstr(std::to_string(longest.size() + 1)));
        EXPECT_THAT(status.message(), HasSubstr(std::to_string(longest.size())));
        s.send(longest);
      },
      [](Receiving& r) { EXPECT_THAT(r.receive_all(1), ElementsAre(std::string(56, 'x'))); });
}

TEST_P(RemoteRing, a_claim_is_invisible_until_it_is_committed) {
  run_pair(
      256,
      [](Sending& s) {
        std::byte* room = s.ring.claim(5);
        ASSERT_NE(room, nullptr);
        std::fill_n(room, 5, std::byte{'c'});
        s.meet();
        s.meet();  // the receiver has looked
        expect_ok(s.ring.commit());
      },
      [](Receiving& r) {
        r.meet();
        EXPECT_FALSE(r.ring.ready());
        EXPECT_THAT(r.poll(), IsEmpty());
        expect_ok(r.status);
        r.meet();
        EXPECT_THAT(r.receive(), ElementsAre("ccccc"));
      });
}

TEST_P(RemoteRing, an_aborted_claim_leaves_nothing) {
  static constexpr std::size_t count = 500;
  run_pair(
      256,
      [](Sending& s) {
        for (std::size_t i = 0; i < count; ++i) {
          const std::size_t size = i % (s.ring.max_message() + 1);
          std::byte* room = nullptr;
          expect_ok(s.world.wait_until([&] { return (room = s.ring.claim(size)) != nullptr; },
                                       s.world.deadline(), "room"));
          ASSERT_NE(room, nullptr);
          std::fill_n(room, size, std::byte{0xff});
          s.ring.abort();
          s.send(std::to_string(i));
        }
      },
      [](Receiving& r) {
        const auto messages = r.receive_all(count);
        ASSERT_EQ(messages.size(), count);
        for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(messages[i], std::to_string(i));
      });
}

TEST_P(RemoteRing, a_dead_producers_claim_leaves_nothing) {
  run([](World& world) {
    if (world.rank() == 0) {
      {
        RingSender ring(world, 1, "ring", 256);
        expect_ok(ring.send(bytes("last words"), world.deadline()));
        std::byte* room = ring.claim(20);
        ASSERT_NE(room, nullptr);
        std::fill_n(room, 20, std::byte{0xff});
        world.bootstrap().fence(60s);
      }
      world.bootstrap().fence(60s);
    } else {
      RingReceiver ring(world, 0, "ring", 256);
      Receiving receiving(world, ring);
      EXPECT_THAT(receiving.receive(), ElementsAre("last words"));
      world.bootstrap().fence(60s);
      world.bootstrap().fence(60s);  // the sender is gone
      EXPECT_FALSE(ring.ready());
      EXPECT_THAT(receiving.poll(), IsEmpty());
      expect_ok(receiving.status);
    }
  });
}

TEST_P(RemoteRing, a_full_ring_refuses_until_room_has_been_consumed) {
  run_pair(
      256,
      [](Sending& s) {
        const int first = s.fill(24);
        EXPECT_GE(first, 6);  // most of 256 bytes in records of 32
        EXPECT_LE(first, 8);
        s.meet();  // nothing is consumed yet
        EXPECT_EQ(s.ring.claim(24), nullptr);
        s.meet();
        expect_ok(s.world.wait_until([&] { return s.ring.claim(24) != nullptr; },
                                     s.world.deadline(), "room"));
        s.ring.abort();
      },
      [](Receiving& r) {
        r.meet();
        r.meet();
        const auto messages = r.receive_all(6);
        EXPECT_EQ(messages[3], std::string(24, '\3'));
      });
}

TEST_P(RemoteRing, sending_to_a_full_ring_waits_for_room_and_no_longer_than_its_deadline) {
  run_pair(
      64,
      [](Sending& s) {
        const int count = s.fill(8);
        EXPECT_GT(count, 0);
        const Time deadline = s.world.now() + 5ms;
        const Status status = s.ring.send(bytes("too late"), deadline);
        EXPECT_EQ(status.code(), Code::timeout);
        EXPECT_THAT(status.message(), HasSubstr("room in a ring"));
        EXPECT_GE(s.world.now(), deadline);
        s.meet();
        s.send("in time");  // the receiver begins to consume while this waits
      },
      [](Receiving& r) {
        r.meet();
        r.world.set_compute_time(5ms);
        r.world.compute([] {});
        std::string last;
        while (last != "in time" && r.status.ok() && !r.world.aborted()) last = r.receive().back();
        expect_ok(r.status);
      });
}

TEST_P(RemoteRing, poll_hands_out_no_more_than_asked_for) {
  run_pair(
      1024,
      [](Sending& s) {
        for (const char* text : {"a", "b", "c", "d"}) s.send(text);
      },
      [](Receiving& r) {
        std::vector<std::string> all;
        while (all.size() < 4) {
          const auto some = r.receive(3);
          EXPECT_LE(some.size(), 3u);
          all.insert(all.end(), some.begin(), some.end());
        }
        EXPECT_THAT(all, ElementsAre("a", "b", "c", "d"));
        EXPECT_THAT(r.poll(0), IsEmpty());
      });
}

TEST_P(RemoteRing, a_capacity_that_is_no_power_of_two_from_64_is_refused) {
  run([](World& world) {
    for (const std::size_t capacity : {0u, 32u, 100u}) {
      try {
        const std::string name = std::to_string(capacity);
        if (world.rank() == 0) {
          const RingSender ring(world, 1, name, capacity);
        } else {
          const RingReceiver ring(world, 0, name, capacity);
        }
        ADD_FAILURE() << capacity;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::invalid_argument);
        EXPECT_THAT(error.what(), HasSubstr(std::to_string(capacity)));
      }
    }
  });
}

TEST_P(RemoteRing, ends_of_different_capacities_are_refused) {
  run([](World& world) {
    if (world.rank() == 0) {
      try {
        const RingSender ring(world, 1, "ring", 1 << 20);
        ADD_FAILURE();
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::peer_mismatch);
        EXPECT_EQ(error.peer(), 1);
      }
      world.bootstrap().fence(60s);
    } else {
      std::optional<RingReceiver> ring;
      try {
        ring.emplace(world, 0, "ring", 1024);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::peer_lost) << "its other end has gone already";
      }
      world.bootstrap().fence(60s);
    }
  });
}

TEST_P(RemoteRing, a_worker_has_a_ring_to_itself) {
  GetParam().run(
      1,
      [](World& world) {
        RingReceiver receiver(world, 0, "own", 64);
        RingSender sender(world, receiver);
        Sending sending(world, sender);
        Receiving receiving(world, receiver);
        // Several times around, so that room comes back.
        for (int i = 0; i < 50; ++i) {
          const std::string text = std::to_string(i);
          sending.send(text);
          EXPECT_THAT(receiving.receive(), ElementsAre(text));
        }
      },
      GetParam().defaults);
}

TEST_P(RemoteRing, rings_of_one_pair_do_not_touch_each_other) {
  static constexpr std::size_t count = 500;
  run([](World& world) {
    const int peer = 1 - world.rank();
    const auto name = [](int from, int which) {
      return std::to_string(from) + "/" + std::to_string(which);
    };
    // Made in the same order at both ends, since making one waits for the other.
    std::vector<RingSender> senders;
    std::vector<RingReceiver> receivers;
    for (int from = 0; from < 2; ++from) {
      for (int which = 0; which < 2; ++which) {
        if (from == world.rank()) {
          senders.emplace_back(world, peer, name(from, which), 512);
        } else {
          receivers.emplace_back(world, peer, name(from, which), 512);
        }
      }
    }
    const auto text = [](int from, std::size_t which, std::size_t i) {
      return "from " + std::to_string(from) + " in " + std::to_string(which) + ": " +
             std::to_string(i);
    };
    std::vector<std::size_t> sent(2), received(2);
    const auto movable = [&] {
      for (std::size_t which = 0; which < 2; ++which) {
        if (receivers[which].ready()) return true;
        if (sent[which] < count && senders[which].claim(40) != nullptr) return true;
      }
      return false;
    };
    while (sent != std::vector{count, count} || received != std::vector{count, count}) {
      const Status status = world.wait_until(movable, world.deadline(), "a ring to move");
      ASSERT_TRUE(status.ok()) << status.message();
      for (std::size_t which = 0; which < 2; ++which) {
        while (sent[which] < count) {
          const std::string message = text(world.rank(), which, sent[which]);
          std::byte* room = senders[which].claim(message.size());
          if (room == nullptr) break;
          std::memcpy(room, message.data(), message.size());
          expect_ok(senders[which].commit());
          ++sent[which];
        }
        int polled = 0;
        expect_ok(receivers[which].poll(
            [&](std::span<const std::byte> message) {
              EXPECT_EQ(std::string(reinterpret_cast<const char*>(message.data()), message.size()),
                        text(peer, which, received[which]++));
            },
            1000, &polled));
      }
    }
    world.bootstrap().fence(60s);
  });
}

TEST_P(RemoteRing, concurrent_messages_of_random_lengths_all_come_through) {
  static constexpr std::uint64_t count = 100'000;  // more than a record's sequence number can count
  run_pair(
      4096,
      [](Sending& s) {
        for (std::uint64_t i = 0; i < count; ++i) s.send(numbered(i, 100));
      },
      [](Receiving& r) {
        std::uint64_t next = 0;
        while (next < count && r.status.ok() && !r.world.aborted()) {
          for (const std::string& message : r.receive()) {
            ASSERT_EQ(message, numbered(next, 100)) << next;
            ++next;
          }
        }
        EXPECT_EQ(next, count);
      });
}

// ---- A peer that writes nonsense.

/// What a sender of broken records may put at the start of a ring.
struct Damage {
  const char* name;
  Word word;
};
using ring_layout::make_record_word;
const Damage damages[] = {
    {"longer than the ring", make_record_word(1, 0, 1'000'000)},
    {"longer than the rest of the ring", make_record_word(1, 0, 1020)},
    {"the longest length there is", make_record_word(1, 0, 0xffff'fffe)},
    {"filler where nothing is to be filled", make_record_word(1, 0, ring_layout::filler)},
    {"of another place", make_record_word(1, 64, 8)},
    {"all ones", ~Word{0}},
};

TEST_P(RemoteRing, a_damaged_record_is_detected_and_not_followed) {
  for (const Damage& damage : damages) {
    run([&](World& world) {
      if (world.rank() == 0) {
        const RingSender sender(world, 1, "ring", 1024);
        const RemoteRegion ring = world.attach(1, "ring/ring/0");
        expect_ok(world.transport().put_signal(ring, 0, nullptr, 0, 0, damage.word));
        world.bootstrap().fence(60s);
      } else {
        RingReceiver ring(world, 0, "ring", 1024);
        Receiving receiving(world, ring);
        for (int i = 0; i < 2; ++i) {  // once broken, always broken
          EXPECT_THAT(receiving.receive(), IsEmpty()) << damage.name;
          EXPECT_EQ(receiving.status.code(), Code::bad_data) << damage.name;
          EXPECT_EQ(receiving.status.peer(), 0);
        }
        world.bootstrap().fence(60s);
      }
    });
  }
}

TEST_P(RemoteRing, a_receiver_that_claims_to_have_consumed_too_much_is_not_believed) {
  // From just behind what the sender has published (224 bytes, see below) to nonsense.
  std::vector<Iteration> heads{1 << 20, max_iteration};
  for (Iteration head = 232; head <= 320; head += 8) heads.push_back(head);
  run([&](World& world) {
    if (world.rank() == 0) {
      RingSender ring(world, 1, "ring", 256);
      Sending sending(world, ring);
      EXPECT_EQ(sending.fill(24), 7);
      for (const Iteration head : heads) {
        sending.meet();
        EXPECT_EQ(ring.claim(24), nullptr) << "after a head of " << head;
      }
      sending.meet();
    } else {
      const RingReceiver ring(world, 0, "ring", 256);
      const RemoteRegion word = world.attach(0, "ring-head/ring/1");
      for (const Iteration head : heads) {
        expect_ok(world.transport().put_signal(word, 0, nullptr, 0, 0, make_word(1, head)));
        expect_ok(world.wait_until([&] { return world.transport().drained(0); }, world.deadline(),
                                   "the put"));
        world.bootstrap().fence(60s);
      }
      world.bootstrap().fence(60s);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, RemoteRing, ::testing::ValuesIn(ring_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace slip
