// The contract of transports and of waiting (design, 3.1 and 3.2), held by every backend: one body.

#include "conformance.h"

#include <gmock/gmock.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "payload.h"
#include "slipstream/runtime/remote_ring.h"
#include "slipstream/runtime/tokens.h"
#include "slipstream/runtime/update_queue.h"

namespace slip::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

/// Regions of the backend under test, and payloads for them.
int device();

class Conformance : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }
  void run(int workers, const Work& work) { run(workers, work, GetParam().defaults); }
  void run(int workers, const Work& work, const RunOptions& options) {
    GetParam().run(workers, work, options);
  }
  /// Behind a proxy rounds are longer, and on a GPU more so.
  int rounds(int many, int few) const {
    if (GetParam().device != gpu::host) return few / 3;
    return GetParam().defaults.faults ? few : many;
  }
};

int device() { return Conformance::GetParam().device; }

Region allocate(World& world, const char* name, std::size_t bytes) {
  return world.allocate(name, bytes, Bell::worker, device());
}

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

/// One of two workers that write to each other: its region and its peer's. The first 64 bytes are
/// words.
class Side {
 public:
  Side(World& world, std::size_t payload)
      : world(world),
        peer(1 - world.rank()),
        payload_bytes(payload),
        here(allocate(world, "side", 64 + payload)),
        there(world.attach(peer, "side")) {
    world.bootstrap().fence(60s);  // so that neither frees it before the other has it
  }

  Word word(int index) const { return here.word(8 * static_cast<std::size_t>(index)); }
  Contents payload() const { return {here, 64, payload_bytes}; }

  void put(std::size_t at, const void* from, std::size_t bytes) const {
    expect_ok(world.transport().put(there, 64 + at, sources.at(from, bytes), bytes));
  }
  void put_signal(const void* from, std::size_t bytes, int index, Word word) const {
    expect_ok(world.transport().put_signal(there, 64, sources.at(from, bytes), bytes,
                                           8 * static_cast<std::size_t>(index), word));
  }
  void signal(int index, Word word) const { put_signal(nullptr, 0, index, word); }
  /// False, and a failed test, if it does not come.
  bool await(int index, Word word) const {
    const Status status =
        world.wait_until([&] { return this->word(index) >= word; }, world.deadline(), "a word");
    expect_ok(status);
    return status.ok();
  }

  World& world;
  int peer;
  std::size_t payload_bytes;
  Region here;
  RemoteRegion there;
  mutable Payloads sources{device()};
};

void fill(std::vector<std::uint64_t>& payload, std::uint64_t round) {
  slip::testing::fill(payload.data(), payload.size(), round);
}

// ---- Memory and puts.

TEST_P(Conformance, a_new_region_is_zero_and_has_its_size) {
  run(1, [](World& world) {
    const Region region = allocate(world, "zero", 5000);
    EXPECT_EQ(region.bytes(), 5000u);
    EXPECT_EQ(region.device(), device());
    const Contents contents(region, 0, 5000);
    for (std::size_t i = 0; i < 5000; ++i) ASSERT_EQ(contents[i], std::byte{0}) << i;
    for (std::size_t i = 0; i < 5000 / 8; ++i) ASSERT_EQ(region.word(8 * i), 0u) << i;
  });
}

TEST_P(Conformance, a_put_lands) {
  run(2, [](World& world) {
    const Side side(world, 4096);
    const std::string message = "from rank " + std::to_string(world.rank());
    side.put(100, message.data(), message.size());
    side.signal(0, 1);
    if (!side.await(0, 1)) return;
    const std::string expected = "from rank " + std::to_string(side.peer);
    const Contents payload = side.payload();
    EXPECT_EQ(std::memcmp(payload.data() + 100, expected.data(), expected.size()), 0);
    EXPECT_EQ(payload[99], std::byte{0});
    EXPECT_EQ(payload[100 + expected.size()], std::byte{0});
  });
}

TEST_P(Conformance, two_regions_do_not_touch_each_other) {
  run(2, [](World& world) {
    const int peer = 1 - world.rank();
    const std::array regions{allocate(world, "first", 128), allocate(world, "second", 128)};
    Payloads sources(device());
    const std::array remotes{world.attach(peer, "first"), world.attach(peer, "second")};
    for (std::size_t r = 0; r < 2; ++r) {
      const std::vector<std::byte> payload(64, std::byte(r + 1));
      expect_ok(world.transport().put_signal(remotes[r], 64, sources.at(payload.data(), 64), 64, 0,
                                             r + 1));
    }
    for (std::size_t r = 0; r < 2; ++r) {
      expect_ok(world.wait_until([&] { return regions[r].word(0) == r + 1; }, world.deadline(),
                                 "a region's word"));
      const Contents payload(regions[r], 64, 64);
      for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(payload[i], std::byte(r + 1));
    }
  });
}

TEST_P(Conformance, a_put_out_of_bounds_is_refused_and_names_the_peer) {
  run(2, [](World& world) {
    const Side side(world, 64);  // 128 bytes
    Transport& transport = world.transport();
    const std::array<std::byte, 256> data{};
    constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
    const auto refused = [&](const Status& status) {
      EXPECT_EQ(status.code(), Code::invalid_argument);
      EXPECT_EQ(status.peer(), side.peer);
      EXPECT_THAT(status.message(), HasSubstr("rank " + std::to_string(side.peer)));
    };
    refused(transport.put(side.there, 0, data.data(), 129));
    refused(transport.put(side.there, 128, data.data(), 1));
    refused(transport.put(side.there, most, data.data(), 2));
    refused(transport.put(side.there, most - 1, data.data(), most));
    refused(transport.put_signal(side.there, 120, data.data(), 16, 0, 1));
    refused(transport.put_signal(side.there, 64, data.data(), 8, 128, 1));
    refused(transport.put_signal(side.there, 64, data.data(), 8, 124, 1));
    refused(transport.put_signal(side.there, 64, data.data(), 8, 4, 1));  // not on a word
    refused(transport.put_signal(side.there, 64, data.data(), 8, most - 7, 1));
    expect_ok(transport.put(side.there, 128, data.data(), 0));
    side.signal(7, 1);
    if (!side.await(7, 1)) return;
    for (std::size_t i = 0; i < 7; ++i) EXPECT_EQ(side.word(static_cast<int>(i)), 0u);
  });
}

TEST_P(Conformance, a_world_of_one_writes_to_itself) {
  run(1, [](World& world) {
    const Region region = allocate(world, "self", 128);
    Payloads sources(device());
    const RemoteRegion self = world.attach(0, "self");
    const std::uint64_t value = 42;
    expect_ok(world.transport().put_signal(self, 64, sources.at(&value, sizeof value), sizeof value,
                                           0, 7));
    expect_ok(
        world.wait_until([&] { return region.word(0) == 7; }, world.deadline(), "its own word"));
    EXPECT_EQ(Contents(region, 64, 8).as<std::uint64_t>(), 42u);
    world.goodbye();
  });
}

// ---- Order.

TEST_P(Conformance, a_payload_is_whole_when_its_word_is_visible) {
  const int count = rounds(2000, 300);
  run(2, [count](World& world) {
    constexpr std::size_t words = 8192;
    const Side side(world, 8 * words);
    std::vector<std::uint64_t> payload(words);
    for (int r = 1; r <= count; ++r) {
      const auto round = static_cast<std::uint64_t>(r);
      if (world.rank() == 0) {
        fill(payload, round);
        side.put_signal(payload.data(), 8 * words, 0, round);
        if (!side.await(0, round)) return;  // it may be overwritten
      } else {
        if (!side.await(0, round)) return;
        ASSERT_TRUE(is_whole(side.payload().data(), words, round)) << "round " << round;
        side.signal(0, round);
      }
    }
  });
}

// What the test above looks at does see a word that runs ahead of its payload.
TEST_P(Conformance, a_word_before_its_payload_is_detected) {
  run(2, [](World& world) {
    constexpr std::size_t words = 8192;
    const Side side(world, 8 * words);
    std::vector<std::uint64_t> payload(words);
    for (std::uint64_t round = 1; round <= 100; ++round) {
      if (world.rank() == 0) {
        fill(payload, round);
        side.put(0, payload.data(), 4 * words);
        side.signal(0, round);
        if (!side.await(0, round)) return;  // the receiver has looked
        side.put(4 * words, payload.data() + words / 2, 4 * words);
      } else {
        if (!side.await(0, round)) return;
        ASSERT_FALSE(is_whole(side.payload().data(), words, round)) << "round " << round;
        side.signal(0, round);
      }
    }
  });
}

TEST_P(Conformance, a_word_follows_all_earlier_puts_to_the_peer) {
  const int count = rounds(2000, 300);
  run(2, [count](World& world) {
    constexpr std::size_t words = 512;
    const Side side(world, 0);
    const Region other = allocate(world, "other", 8 * words);
    const RemoteRegion others = world.attach(side.peer, "other");
    std::vector<std::uint64_t> payload(words);
    for (int r = 1; r <= count; ++r) {
      const auto round = static_cast<std::uint64_t>(r);
      if (world.rank() == 0) {
        fill(payload, round);
        for (std::size_t i = 0; i < words; i += 128) {
          expect_ok(world.transport().put(others, 8 * i,
                                          side.sources.at(payload.data() + i, 8 * 128), 8 * 128));
        }
        side.signal(0, round);
        if (!side.await(0, round)) return;
      } else {
        if (!side.await(0, round)) return;
        ASSERT_TRUE(is_whole(Contents(other, 0, 8 * words).data(), words, round))
            << "round " << round;
        side.signal(0, round);
      }
    }
  });
}

TEST_P(Conformance, words_arrive_in_order) {
  const auto count = static_cast<Word>(rounds(20000, 2000));
  run(2, [count](World& world) {
    const Side side(world, 1024);
    if (world.rank() == 0) {
      const std::array<std::byte, 1024> noise{};
      for (Word k = 1; k <= count; ++k) {
        side.put_signal(noise.data(), k % 5 == 0 ? noise.size() : 0, 0, k);
        side.signal(1, k);
      }
      return;
    }
    Word last = 0;
    bool in_order = true;
    expect_ok(world.wait_until(
        [&] {
          const Word second = side.word(1);  // written after the first word of the same k
          const Word first = side.word(0);
          in_order = in_order && second >= last && first >= second;
          last = second;
          return last == count;
        },
        world.deadline(), "the last word"));
    EXPECT_TRUE(in_order);
  });
}

TEST_P(Conformance, each_writer_has_its_own_word) {
  run(5, [](World& world) {
    const auto lane = [](int rank) { return static_cast<std::size_t>(rank) * 64; };
    const Region region = allocate(world, "lanes", 5 * 64);
    Payloads sources(device());
    const RemoteRegion root = world.attach(0, "lanes");
    for (std::uint64_t k = 1; k <= 200; ++k) {
      const std::uint64_t payload = pattern(k, lane(world.rank()));
      expect_ok(world.transport().put_signal(root, lane(world.rank()) + 8, sources.at(&payload, 8),
                                             8, lane(world.rank()), k));
    }
    if (world.rank() != 0) return;
    for (int rank = 0; rank < 5; ++rank) {
      expect_ok(world.wait_until([&] { return region.word(lane(rank)) == 200; }, world.deadline(),
                                 "a writer's last word"));
      EXPECT_EQ(Contents(region, lane(rank) + 8, 8).as<std::uint64_t>(), pattern(200, lane(rank)));
    }
  });
}

TEST_P(Conformance, drained_says_that_puts_have_taken_effect) {
  run(2, [](World& world) {
    const Side side(world, 64);
    if (world.rank() == 0) {
      const std::uint64_t value = 99;
      for (std::size_t i = 0; i < 8; ++i) side.put(8 * i, &value, sizeof value);
      expect_ok(world.wait_until([&] { return world.transport().drained(1); }, world.deadline(),
                                 "puts to take effect"));
      world.bootstrap().put("flushed", "yes");  // by another way than the transport
    } else {
      EXPECT_EQ(world.bootstrap().get("flushed", 60s), "yes");
      for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(side.payload().as<std::uint64_t>(i), 99u);
    }
  });
}

// ---- Set-up and goodbye.

TEST_P(Conformance, attach_waits_until_the_owner_has_allocated) {
  run(2, [](World& world) {
    if (world.rank() == 1) {
      world.set_compute_time(30ms);
      world.compute([] {});
      const Region region = allocate(world, "late", 256);
      expect_ok(
          world.wait_until([&] { return region.word(0) == 5; }, world.deadline(), "the word"));
    } else {
      const RemoteRegion late = world.attach(1, "late");
      EXPECT_EQ(late.bytes, 256u);
      expect_ok(world.transport().put_signal(late, 0, nullptr, 0, 0, 5));
    }
  });
}

TEST_P(Conformance, attaching_to_what_nobody_allocates_fails_and_names_it) {
  RunOptions options = GetParam().defaults;
  options.world.join_timeout = 1s;
  run(
      2,
      [](World& world) {
        if (world.rank() != 0) return;
        try {
          (void)world.attach(1, "nothing");
          ADD_FAILURE() << "attached";
        } catch (const Error& error) {
          // In virtual time the others' waits show that nobody ever will.
          EXPECT_EQ(error.code(), world.clock().is_virtual() ? Code::aborted : Code::timeout);
          EXPECT_THAT(error.what(), HasSubstr("region/1/nothing"));
        }
      },
      options);
}

TEST_P(Conformance, memory_may_be_written_until_all_have_said_goodbye) {
  run(3, [](World& world) {
    const Region region = allocate(world, "memory", 64);
    const RemoteRegion next = world.attach((world.rank() + 1) % 3, "memory");
    world.set_compute_time(world.rank() * 20ms);  // the last comes when the others wait
    world.compute([] {});
    expect_ok(world.transport().put_signal(next, 0, nullptr, 0, 0, 8));
    expect_ok(world.wait_until([&] { return world.transport().drained(next.peer); },
                               world.deadline(), "puts to take effect"));
    world.goodbye();
    EXPECT_EQ(region.word(0), 8u);
    EXPECT_FALSE(world.aborted());
  });
}

// ---- Waiting.

TEST_P(Conformance, a_wait_ends_at_its_deadline_and_says_for_what_it_waited) {
  run(2, [](World& world) {
    const Time start = world.now();
    const Status status = world.wait_until([] { return false; }, start + 20ms, "the impossible");
    EXPECT_EQ(status.code(), Code::timeout);
    EXPECT_GE(world.now(), start + 20ms);
    EXPECT_THAT(status.message(), HasSubstr("the impossible"));
    EXPECT_THAT(status.message(), HasSubstr("rank " + std::to_string(world.rank())));
  });
}

TEST_P(Conformance, a_parked_waiter_is_woken_by_a_word) {
  run(2, [](World& world) {
    const Side side(world, 0);
    for (Word k = 1; k <= 5; ++k) {
      if (world.rank() == 1) {
        world.set_compute_time(10ms);  // far longer than anybody spins
        world.compute([] {});
        side.signal(0, k);
      }
      if (!side.await(0, k)) return;
      if (world.rank() == 0) side.signal(0, k);
    }
  });
}

// ---- While the target computes.

TEST_P(Conformance, an_abort_wakes_a_parked_waiter) {
  run(2, [](World& world) {
    const Side side(world, 0);
    if (world.rank() == 0) {
      const Region bell = world.allocate("abort", 64, Bell::progress);
      const auto service = world.progress().serve(world.transport(), [&] {
        if (bell.word(0) != 0 && !world.aborted()) {
          world.abort({Code::stopped, "asked to end", 1});
        }
        return false;
      });
      const Status status =
          world.wait_until([] { return false; }, world.deadline(), "the impossible");
      EXPECT_EQ(status.code(), Code::stopped);
      EXPECT_EQ(status.message(), "asked to end");
      EXPECT_EQ(world.status().code(), Code::stopped);
      side.signal(0, 1);
    } else {
      const RemoteRegion bell = world.attach(0, "abort");
      world.set_compute_time(20ms);
      world.compute([] {});
      expect_ok(world.transport().put_signal(bell, 0, nullptr, 0, 0, 1));
      side.await(0, 1);
      world.abort({Code::stopped, "done"});  // as its peer: no goodbye
    }
  });
}

TEST_P(Conformance, puts_tokens_and_requests_complete_while_the_target_computes) {
  run(2, [](World& world) {
    const Side side(world, 4096);
    const Graph ring(2, {{0, 1, {}}, {1, 0, {}}});
    Tokens tokens(world, "tokens", neighbourhood(ring, world.rank()), 1);
    constexpr std::size_t capacity = 1024;
    if (world.rank() == 0) {
      RingReceiver requests(world, 1, "requests", capacity, Bell::progress);
      RingSender answers(world, 1, "answers", capacity);
      std::string unanswered;  // that answers have room again may be learnt late
      const auto service = world.progress().serve(world.transport(), [&] {
        if (unanswered.empty()) {
          int count = 0;
          expect_ok(requests.poll(
              [&](std::span<const std::byte> request) {
                unanswered.assign(reinterpret_cast<const char*>(request.data()), request.size());
              },
              1, &count));
        }
        if (unanswered.empty()) return false;
        std::byte* const room = answers.claim(unanswered.size());
        if (room == nullptr) return false;
        std::memcpy(room, unanswered.data(), unanswered.size());
        unanswered.clear();
        expect_ok(answers.commit());
        return true;
      });
      side.signal(0, 1);
      // One computation of whole seconds: it waits for nothing.
      world.set_compute_time(1s);
      for (int second = 0; second < 30 && side.word(0) == 0; ++second) world.compute([] {});
      EXPECT_EQ(side.word(0), 1u) << "nothing came through while it computed";
      EXPECT_TRUE(is_whole(side.payload().data(), 512, 1));
      EXPECT_EQ(tokens.count(0, 0), 1);  // the peer has entered iteration 0
    } else {
      RingSender requests(world, 0, "requests", capacity);
      RingReceiver answers(world, 0, "answers", capacity);
      if (!side.await(0, 1)) return;
      std::vector<std::uint64_t> payload(512);
      fill(payload, 1);
      side.put(0, payload.data(), 4096);
      expect_ok(tokens.announce(0));
      // Many in a row: none may have to wait for the progress thread to look by itself.
      for (int i = 0; i < 100; ++i) {
        const std::string request = "please " + std::to_string(i);
        expect_ok(requests.send(std::as_bytes(std::span(request)), world.deadline()));
        const auto answered = [&] { return answers.ready(); };
        expect_ok(world.wait_until(answered, world.deadline(), "an answer"));
        std::string answer;
        int count = 0;
        expect_ok(answers.poll(
            [&](std::span<const std::byte> message) {
              answer.assign(reinterpret_cast<const char*>(message.data()), message.size());
            },
            1, &count));
        ASSERT_EQ(answer, request);
      }
      side.signal(0, 1);
    }
  });
}

// ---- Faults.

TEST_P(Conformance, corruption_is_detected_by_the_update_queue) {
  if (device() != gpu::host) GTEST_SKIP() << "updates in a GPU's memory have no checksums";
  RunOptions options = GetParam().defaults;
  if (!options.faults) options.faults.emplace();
  options.faults->corrupt_probability = 0.3;
  run(
      2,
      [](World& world) {
        const Graph edge(2, {{0, 1, {}}});
        constexpr std::size_t bytes = 1000;
        UpdateQueueOptions queue_options;
        queue_options.bytes = bytes;
        queue_options.depth = 64;
        queue_options.chunk_bytes = 256;
        queue_options.checksums = true;
        UpdateQueue queue(world, "updates", neighbourhood(edge, world.rank()), queue_options);
        std::vector<std::byte> update(bytes);
        int damaged = 0;
        for (Iteration k = 0; k < 64; ++k) {
          for (std::size_t i = 0; i < bytes; ++i) update[i] = std::byte(key({k, i}));
          if (world.rank() == 0) {
            expect_ok(queue.enqueue(0, k, update.data()));
            continue;
          }
          expect_ok(
              world.wait_until([&] { return queue.arrived(0, k); }, world.deadline(), "an update"));
          const Status status = queue.verify(0, k);
          if (status.ok()) {
            EXPECT_EQ(std::memcmp(queue.update(0, k), update.data(), bytes), 0) << k;
          } else {
            EXPECT_EQ(status.code(), Code::bad_data);
            EXPECT_EQ(status.peer(), 0);
            ++damaged;
          }
        }
        if (world.rank() == 1) {
          EXPECT_GT(damaged, 0);
          EXPECT_LT(damaged, 64);
        }
      },
      options);
}

TEST_P(Conformance, a_cut_peer_is_lost_to_the_sender) {
  RunOptions options = GetParam().defaults;
  if (!options.faults) options.faults.emplace();
  options.faults->cut_peer = 1;
  options.faults->cut_after = 5;
  run(
      2,
      [](World& world) {
        const Side side(world, 0);
        if (world.rank() == 1) {
          side.await(0, 5);
          EXPECT_EQ(side.word(0), 5u);
          return;
        }
        for (Word k = 1; k <= 5; ++k) side.signal(0, k);
        for (int i = 0; i < 2; ++i) {
          const Status status = world.transport().put_signal(side.there, 0, nullptr, 0, 0, 6);
          EXPECT_EQ(status.code(), Code::peer_lost);
          EXPECT_EQ(status.peer(), 1);
        }
      },
      options);
}

const auto name_of = [](const auto& info) { return info.param.name; };

INSTANTIATE_TEST_SUITE_P(Backends, Conformance, ::testing::ValuesIn(all_backends()), name_of);
INSTANTIATE_TEST_SUITE_P(GpuBackends, Conformance, ::testing::ValuesIn(gpu_backends()), name_of);

}  // namespace
}  // namespace slip::testing
