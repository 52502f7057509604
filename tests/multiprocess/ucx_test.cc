// Workers over UCX beyond what every backend must do: order, and peers that end or fall silent.

#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "conformance.h"
#include "payload.h"
#include "shared_memory_names.h"
#include "slipstream/transport/mixed_transport.h"
#include "slipstream/transport/shm/shm_transport.h"
#include "slipstream/transport/ucx/ucx_transport.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using testing::fill;
using ::testing::HasSubstr;
using testing::is_whole;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

/// The parameter: UCX's networks.
class Ucx : public ::testing::TestWithParam<std::string> {
 protected:
  void TearDown() override { EXPECT_THAT(shared_memory_.left(), ::testing::IsEmpty()); }

  static std::vector<int> run(int workers, const testing::Work& work, Duration peer_timeout = 10s) {
    testing::RunOptions options;
    options.world.transport = "ucx";
    options.world.wait_timeout = 60s;
    options.world.peer_timeout = peer_timeout;
    options.environment = {{"UCX_TLS", GetParam()}};
    return testing::run_processes(workers, work, options);
  }

 private:
  const SharedMemoryNames shared_memory_{"ucx"};
};

/// The first line of a region is a word.
constexpr std::size_t line = 64;

// As in order_test, but the words go through an endpoint of their own, which nothing orders behind
// the payloads'. UCX's shared memory has written a payload when the put returns, so there is no
// such order to lose.
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
        fill(source.data(), words, round);
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

TEST_P(Ucx, a_stopped_peer_is_lost_once_it_has_been_silent_for_long) {
  const auto work = [](World& world) {
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
  };
  const auto ends = run(2, work, 6s);
  EXPECT_EQ(ends[0], 0);
  EXPECT_EQ(ends[1], 0);
}

TEST_P(Ucx, a_computing_peer_is_not_lost) {
  const auto work = [](World& world) {
    const Region here = world.allocate("memory", line);
    const RemoteRegion there = world.attach(1 - world.rank(), "memory");
    if (world.rank() == 1) {
      world.set_compute_time(10s);  // longer than a peer may be silent
      world.compute([] {});
      expect_ok(world.transport().put_signal(there, 0, nullptr, 0, 0, 1));
    } else {
      const auto came = [&] { return here.word(0) == 1; };
      expect_ok(world.wait_until(came, world.deadline(), "a word"));
    }
    world.goodbye();
  };
  const auto ends = run(2, work, 8s);
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
