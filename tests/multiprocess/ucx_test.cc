// Workers over UCX beyond what every backend must do: order, and peers that end or fall silent.

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/transport/mixed_transport.h"
#include "slipstream/transport/shm/shm_transport.h"
#include "slipstream/transport/ucx/ucx_transport.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

std::set<std::string> shared_memory() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    names.insert(entry.path().filename());
  }
  return names;
}

/// The parameter: UCX's networks.
class Ucx : public ::testing::TestWithParam<std::string> {
 protected:
  void TearDown() override { EXPECT_EQ(shared_memory(), before_) << "left behind"; }

  static std::vector<int> run(int workers, const testing::Work& work) {
    testing::RunOptions options;
    options.world.transport = "ucx";
    options.world.wait_timeout = 60s;
    options.world.peer_timeout = 2s;
    options.environment = {{"UCX_TLS", GetParam()}};
    return testing::run_processes(workers, work, options);
  }

 private:
  const std::set<std::string> before_ = shared_memory();
};

/// The first line of a region is a word.
constexpr std::size_t line = 64;

std::uint64_t pattern(std::uint64_t round, std::size_t index) { return key({round, index}); }

void fill(std::uint64_t* payload, std::size_t words, std::uint64_t round) {
  for (std::size_t i = 0; i < words; ++i) payload[i] = pattern(round, i);
}

/// The last word, the first, and some between.
bool is_whole(const std::byte* payload, std::size_t words, std::uint64_t round) {
  const auto right = [&](std::size_t index) {
    std::uint64_t found = 0;
    std::memcpy(&found, payload + sizeof found * index, sizeof found);
    return found == pattern(round, index);
  };
  Random random(round);
  bool all = right(words - 1) && right(0);
  for (int i = 0; i < 16; ++i) all = all && right(random.below(words));
  return all;
}

std::uint64_t order_rounds() {
  const char* text = std::getenv("SLIP_TEST_ORDER_ROUNDS");
  return text == nullptr ? 10'000 : std::strtoull(text, nullptr, 10);
}

// Payloads of many packets, several under way at a time, out of registered memory.
TEST_P(Ucx, no_word_overtakes_its_payload) {
  const std::uint64_t count = order_rounds();
  const auto ends = run(2, [count](World& world) {
    constexpr std::size_t slots = 4;
    constexpr std::array<std::size_t, 3> lengths = {700, 8192, 20000};  // in words
    constexpr std::size_t slot_bytes = line + 8 * lengths.back();
    const Region here = world.allocate("slots", slots * slot_bytes);
    const RemoteRegion there = world.attach(1 - world.rank(), "slots");
    Transport& transport = world.transport();
    const Region source = transport.allocate(slots * slot_bytes);
    std::uint64_t violations = 0;
    for (std::uint64_t round = 1; round <= count; ++round) {
      const std::size_t at = round % slots * slot_bytes;
      const std::size_t words = lengths[round % lengths.size()];
      if (world.rank() == 0) {
        // Its slot is free, here as there, once the round that used it before is confirmed.
        const auto free = [&] { return here.word(0) + slots >= round; };
        expect_ok(world.wait_until(free, world.deadline(), "a slot"));
        std::byte* const from = source.data() + at + line;
        fill(reinterpret_cast<std::uint64_t*>(from), words, round);
        expect_ok(transport.put_signal(there, at + line, from, 8 * words, at, round));
      } else {
        const auto came = [&] { return here.word(at) == round; };
        expect_ok(world.wait_until(came, world.deadline(), "a word"));
        violations += !is_whole(here.data() + at + line, words, round);
        expect_ok(transport.put_signal(there, 0, nullptr, 0, 0, round));
      }
      if (::testing::Test::HasFailure()) return;
    }
    EXPECT_EQ(violations, 0u) << "of " << count;
    world.goodbye();
  });
  EXPECT_THAT(ends, ::testing::Each(0));
}

// The same, but the words go through an endpoint of their own, which nothing orders behind the
// payloads'. UCX's shared memory has written a payload when the put returns, so there is no such
// order to lose.
TEST_P(Ucx, a_word_through_another_endpoint_is_seen_to_overtake) {
  if (GetParam() != "tcp") GTEST_SKIP() << "a put has taken effect when it returns";
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "it is a race on purpose";
#endif
  const auto ends = run(2, [](World& world) {
    constexpr std::size_t words = 1 << 19;
    // Most rounds see it; on a loaded machine many may not.
    constexpr std::uint64_t most_rounds = 1000;
    constexpr std::uint64_t seen = std::uint64_t{1} << 32;  // in a confirmation
    const Region here = world.allocate("slot", line + 8 * words);
    const RemoteRegion there = world.attach(1 - world.rank(), "slot");
    Transport& transport = world.transport();
    bool overtaken = false;
    if (world.rank() == 0) {
      const auto other = make_ucx_transport({.rank = 2});
      const auto driving = world.progress().serve(*other, [] { return false; });
      const RemoteRegion same = other->attach(1, world.bootstrap().get("region/1/slot", 30s));
      const Region source = transport.allocate(8 * words);
      for (std::uint64_t round = 1; round <= most_rounds && !overtaken; ++round) {
        fill(reinterpret_cast<std::uint64_t*>(source.data()), words, round);
        expect_ok(transport.put(there, line, source.data(), 8 * words));
        expect_ok(other->put_signal(same, 0, nullptr, 0, 0, round));
        const auto confirmed = [&] {
          return (here.word(0) & ~seen) == round && transport.drained(1);
        };
        expect_ok(world.wait_until(confirmed, world.deadline(), "a confirmation"));
        overtaken = (here.word(0) & seen) != 0;
      }
    } else {
      for (std::uint64_t round = 1; round <= most_rounds && !overtaken; ++round) {
        const auto came = [&] { return here.word(0) == round; };
        expect_ok(world.wait_until(came, world.deadline(), "a word"));
        overtaken = !is_whole(here.data() + line, words, round);
        const Word confirmation = round | (overtaken ? seen : 0);
        expect_ok(transport.put_signal(there, 0, nullptr, 0, 0, confirmation));
      }
    }
    EXPECT_TRUE(overtaken);
    world.goodbye();
  });
  EXPECT_THAT(ends, ::testing::Each(0));
}

/// Until rank 1 is lost, of which this worker tells; the run is over then.
void expect_loss(World& world, const std::string& why) {
  const Status status = world.wait_until([] { return false; }, world.deadline(), "the impossible");
  EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
  EXPECT_EQ(status.peer(), 1);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("rank 0"), HasSubstr("lost rank 1"), HasSubstr(why)));
}

TEST_P(Ucx, a_peer_killed_in_the_middle_of_puts_is_lost) {
  const auto ends = run(2, [](World& world) {
    const Region here = world.allocate("memory", 1 << 22);
    const RemoteRegion there = world.attach(1 - world.rank(), "memory");
    world.bootstrap().fence(60s);
    if (world.rank() == 1) {
      for (int i = 0; i < 8; ++i) {
        expect_ok(world.transport().put(there, 0, here.data(), here.bytes()));
      }
      raise(SIGKILL);
    }
    expect_loss(world, "");
  });
  EXPECT_EQ(ends[0], 0);
  EXPECT_EQ(WTERMSIG(ends[1]), SIGKILL);
}

TEST_P(Ucx, a_stopped_peer_is_lost_once_it_has_been_silent_for_long) {
  const auto ends = run(2, [](World& world) {
    const Region here = world.allocate("memory", line);
    const RemoteRegion there = world.attach(1 - world.rank(), "memory");
    world.bootstrap().put("pid/" + std::to_string(world.rank()), std::to_string(getpid()));
    world.bootstrap().fence(60s);  // both have attached
    if (world.rank() == 1) {
      raise(SIGSTOP);
      _exit(0);
    }
    expect_loss(world, "silent");
    kill(std::stoi(world.bootstrap().get("pid/1", 30s)), SIGCONT);
  });
  EXPECT_EQ(ends[0], 0);
  EXPECT_EQ(ends[1], 0);
}

TEST_P(Ucx, a_computing_peer_is_not_lost) {
  const auto ends = run(2, [](World& world) {
    const Region here = world.allocate("memory", line);
    const RemoteRegion there = world.attach(1 - world.rank(), "memory");
    if (world.rank() == 1) {
      world.set_compute_time(3s);  // longer than a peer may be silent
      world.compute([] {});
      expect_ok(world.transport().put_signal(there, 0, nullptr, 0, 0, 1));
    } else {
      const auto came = [&] { return here.word(0) == 1; };
      expect_ok(world.wait_until(came, world.deadline(), "a word"));
    }
    world.goodbye();
  });
  EXPECT_THAT(ends, ::testing::Each(0));
}

TEST_P(Ucx, attaching_to_a_region_that_was_freed_names_its_owner) {
  const auto ends = run(2, [](World& world) {
    if (world.rank() == 1) {
      { const Region gone = world.allocate("gone", line); }
      world.bootstrap().put("freed", "yes");
    } else {
      (void)world.bootstrap().get("freed", 30s);
      try {
        (void)world.attach(1, "gone");
        ADD_FAILURE() << "attached";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::peer_lost);
        EXPECT_THAT(error.what(), HasSubstr("rank 1 has freed the region"));
      }
    }
    world.goodbye();
  });
  EXPECT_THAT(ends, ::testing::Each(0));
}

TEST_P(Ucx, a_damaged_key_names_who_published_it) {
  const auto ends = run(1, [](World& world) {
    const Region region = world.transport().allocate(line);
    for (const std::string& damaged :
         {std::string(), std::string("nonsense"), region.key().substr(1),
          region.key().substr(0, region.key().size() - 1), region.key() + "x"}) {
      try {
        (void)world.transport().attach(7, damaged);
        ADD_FAILURE() << "attached";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::bad_data);
        EXPECT_EQ(error.peer(), 7);
        EXPECT_THAT(error.what(), HasSubstr("rank 7 published a damaged region key"));
      }
    }
  });
  EXPECT_THAT(ends, ::testing::Each(0));
}

// What transport auto puts together where there are several hosts: here each takes the other one
// for a worker of another host.
TEST_P(Ucx, memory_shared_within_a_host_is_written_through_ucx_from_others) {
  const auto ends = run(2, [](World& world) {
    auto near = std::make_unique<ShmTransport>("shm");
    auto far = make_ucx_transport({.rank = world.rank(), .doorbell = near->doorbell()});
    const auto doorbell = near->doorbell();
    MixedTransport mixed(std::move(near), std::move(far),
                         [&world](int peer) { return peer == world.rank(); });
    const auto driving = world.progress().serve(mixed, [] { return false; });
    constexpr std::size_t words = 1000;
    const Region here = mixed.allocate(line + 8 * words, Bell::worker, gpu::host);
    const int peer = 1 - world.rank();
    world.bootstrap().put("key/" + std::to_string(world.rank()), here.key());
    const std::string key = world.bootstrap().get("key/" + std::to_string(peer), 30s);
    const RemoteRegion there = mixed.attach(peer, key);
    EXPECT_FALSE(there.mapped());
    EXPECT_TRUE(mixed.attach(world.rank(), here.key()).mapped());
    std::vector<std::uint64_t> payload(words);
    fill(payload.data(), words, 7);
    expect_ok(mixed.put_signal(there, line, payload.data(), 8 * words, 0, 7));
    RealWaiter waiter(doorbell, std::make_shared<RealClock>(), std::make_shared<AbortToken>(), 50us,
                      &mixed);
    const auto came = [&] { return here.word(0) == 7 && mixed.drained(peer); };
    expect_ok(waiter.wait(came, 30s));
    EXPECT_TRUE(is_whole(here.data() + line, words, 7));
    for (const std::string& damaged : {std::string("ab"), key.substr(0, 20)}) {
      EXPECT_THROW((void)mixed.attach(peer, damaged), Error);
    }
    world.bootstrap().fence(30s);  // the peer has what was put, and lets go
  });
  EXPECT_THAT(ends, ::testing::Each(0));
}

TEST_P(Ucx, a_put_of_many_pieces_arrives_whole) {
  const auto ends = run(2, [](World& world) {
    constexpr std::size_t words = (std::size_t{9} << 20) / 8 + 1;  // over 4 MiB more than once
    const Region here = world.allocate("memory", line + 8 * words);
    const RemoteRegion there = world.attach(1 - world.rank(), "memory");
    if (world.rank() == 0) {
      std::vector<std::uint64_t> payload(words);
      fill(payload.data(), words, 3);
      expect_ok(world.transport().put_signal(there, line, payload.data(), 8 * words, 0, 3));
    } else {
      const auto came = [&] { return here.word(0) == 3; };
      expect_ok(world.wait_until(came, world.deadline(), "a word"));
      std::vector<std::uint64_t> expected(words);
      fill(expected.data(), words, 3);
      EXPECT_EQ(std::memcmp(here.data() + line, expected.data(), 8 * words), 0);
    }
    world.goodbye();
  });
  EXPECT_THAT(ends, ::testing::Each(0));
}

INSTANTIATE_TEST_SUITE_P(Networks, Ucx, ::testing::Values("tcp", "self,posix"),
                         [](const auto& info) { return info.param == "tcp" ? "tcp" : "posix"; });

}  // namespace
}  // namespace slip
