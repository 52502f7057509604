// Workers over verbs beyond what every backend must do: order, full queues, peers that are lost,
// and what is wrong with a set-up. Needs an RDMA device; tools/rdma-machine has one.

#include <gmock/gmock.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conformance.h"
#include "ends.h"
#include "payload.h"
#include "slipstream/transport/mixed_transport.h"
#include "slipstream/transport/shm/shm_transport.h"
#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Each;
using testing::fill;
using ::testing::HasSubstr;
using testing::is_whole;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

/// The first line of a region is a word.
constexpr std::size_t line = 64;

VerbsOptions options_of(int rank) {
  VerbsOptions options;
  options.rank = rank;
  options.workers = 3;
  options.peer_timeout = 7s;
  options.connect_timeout = 20s;
  options.settings = verbs_settings_from_environment();
  return options;
}

/// A worker with a transport of its own.
struct End : testing::End {
  End(World& world, const VerbsOptions& options)
      : testing::End(world, make_verbs_transport(options)) {}
  explicit End(World& world) : End(world, options_of(world.rank())) {}
};

class Verbs : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = verbs_status(verbs_settings_from_environment()).unusable;
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  static std::vector<int> run(int workers, const testing::Work& work, const char* transport,
                              Duration peer_timeout = 10s, const std::string& words = "automatic") {
    testing::RunOptions options;
    options.world.transport = transport;
    options.world.wait_timeout = 60s;
    options.world.peer_timeout = peer_timeout;
    options.environment = {{"SLIP_VERBS_WORDS", words}};
    return testing::run_processes(workers, work, options);
  }
  /// For workers that are an End each.
  static std::vector<int> run_ends(int workers, const testing::Work& work,
                                   const std::string& words = "automatic") {
    return run(workers, work, "shm", 10s, words);
  }
};

// ---- Order.

/// The parameter: how words reach their readers.
class VerbsWords : public Verbs, public ::testing::WithParamInterface<std::string> {};

// A worker that spins tells its peers that they may spare it notices, and takes that back when it
// sleeps: here by turns, and nothing but what the peer sends ends a sleep.
TEST_P(VerbsWords, a_word_wakes_a_worker_that_sleeps_after_it_has_spun_for_long) {
  const auto work = [](World& world) {
    End end(world);
    const Region here = end.allocate("word", line);
    const RemoteRegion there = end.attach(1 - world.rank(), "word");
    world.bootstrap().fence(30s);
    Word next = 0;
    for (int burst = 0; burst < 20 && !::testing::Test::HasFailure(); ++burst) {
      for (int i = 0; i < 40; ++i) {
        ++next;
        if (world.rank() == 1) expect_ok(end.wait([&] { return here.word(0) == next; }));
        expect_ok(end.transport->put_signal(there, 0, nullptr, 0, 0, next));
        if (world.rank() == 0) expect_ok(end.wait([&] { return here.word(0) == next; }));
      }
      if (world.rank() == 0) std::this_thread::sleep_for(5ms);  // the other one parks
    }
    world.bootstrap().fence(60s);
    world.goodbye();
  };
  EXPECT_THAT(run_ends(2, work, GetParam()), Each(0));
}

INSTANTIATE_TEST_SUITE_P(Words, VerbsWords, ::testing::Values("completion", "polled"),
                         [](const auto& info) { return info.param; });

// As in order_test, but each word is sent before its payload.
TEST_F(Verbs, a_word_sent_ahead_of_its_payload_is_seen_to_be_ahead) {
  const auto work = [](World& world) {
    constexpr std::size_t words = 1 << 17;
    // Most rounds see it; on a loaded machine many may not.
    constexpr std::uint64_t most_rounds = 1000;
    constexpr std::uint64_t seen = std::uint64_t{1} << 32;  // in a confirmation
    const Region here = world.allocate("slot", line + 8 * words);
    const RemoteRegion there = world.attach(1 - world.rank(), "slot");
    Transport& transport = world.transport();
    bool is_ahead = false;
    for (std::uint64_t round = 1; round <= most_rounds && !is_ahead; ++round) {
      if (world.rank() == 0) {
        fill(here.data() + line, words, round);
        expect_ok(transport.put_signal(there, 0, nullptr, 0, 0, round));
        expect_ok(transport.put(there, line, here.data() + line, 8 * words));
        const auto confirmed = [&] {
          return (here.word(0) & ~seen) == round && transport.drained(1);
        };
        expect_ok(world.wait_until(confirmed, world.deadline(), "a confirmation"));
        is_ahead = (here.word(0) & seen) != 0;
      } else {
        const auto came = [&] { return here.word(0) == round; };
        expect_ok(world.wait_until(came, world.deadline(), "a word"));
        is_ahead = !is_whole(here.data() + line, words, round);
        const Word confirmation = round | (is_ahead ? seen : 0);
        expect_ok(transport.put_signal(there, 0, nullptr, 0, 0, confirmation));
      }
    }
    EXPECT_TRUE(is_ahead);
    world.goodbye();
  };
  EXPECT_THAT(run(2, work, "verbs"), Each(0));
}

TEST_F(Verbs, a_put_of_many_pieces_out_of_any_memory_arrives_whole) {
  const auto work = [](World& world) {
    constexpr std::size_t words = (std::size_t{5} << 20) / 8 + 1;  // over 1 MiB more than once
    const Region here = world.allocate("memory", line + 8 * words);
    const RemoteRegion there = world.attach(1 - world.rank(), "memory");
    if (world.rank() == 0) {
      std::vector<std::byte> payload(8 * words);
      fill(payload.data(), words, 3);
      expect_ok(world.transport().put_signal(there, line, payload.data(), 8 * words, 0, 3));
      std::memset(payload.data(), 0, 8 * words);  // it was copied
    }
    if (world.rank() == 1) {
      const auto came = [&] { return here.word(0) == 3; };
      expect_ok(world.wait_until(came, world.deadline(), "a word"));
      std::vector<std::byte> expected(8 * words);
      fill(expected.data(), words, 3);
      EXPECT_EQ(std::memcmp(here.data() + line, expected.data(), 8 * words), 0);
    }
    world.goodbye();
  };
  EXPECT_THAT(run(2, work, "verbs"), Each(0));
}

// ---- Full queues.

TEST_F(Verbs, nothing_overruns_a_receiver_that_does_not_drive) {
  const auto work = [](World& world) {
    constexpr Word count = 3000;
    constexpr std::size_t payload = 1000;
    End end(world);
    const Region here = end.allocate("memory", line + payload);
    const RemoteRegion there = end.attach(1 - world.rank(), "memory");
    world.bootstrap().fence(30s);
    // Both at once, and neither reads what comes until it has put all of its own.
    end.stop_driving();
    const std::vector<std::byte> noise(payload);
    for (Word k = 1; k <= count; ++k) {
      expect_ok(
          end.transport->put_signal(there, line, noise.data(), k % 3 == 0 ? payload : 8, 0, k));
    }
    world.bootstrap().fence(30s);
    // A put drives while it waits for room. But who had put all first has not driven since, and so
    // lacks the last word of the other.
    const Word came = here.word(0);
    world.bootstrap().put("came/" + std::to_string(world.rank()), std::to_string(came));
    const std::string other =
        world.bootstrap().get("came/" + std::to_string(1 - world.rank()), 30s);
    EXPECT_LT(std::min(came, Word{std::stoull(other)}), count);
    end.drive_again();
    Word last = 0;
    bool in_order = true;
    expect_ok(end.wait([&] {
      in_order = in_order && here.word(0) >= last;
      last = here.word(0);
      return last == count && end.transport->drained(1 - world.rank());
    }));
    EXPECT_TRUE(in_order);
    world.bootstrap().fence(30s);
    world.goodbye();
  };
  EXPECT_THAT(run_ends(2, work, "completion"), Each(0));
}

// ---- Peers that are lost.

/// Until rank 1 is lost, of which this worker tells.
void expect_loss(const Status& status, const std::string& why) {
  EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
  EXPECT_EQ(status.peer(), 1);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("rank 0"), HasSubstr("lost rank 1"), HasSubstr(why)));
}

TEST_F(Verbs, a_stopped_peer_is_lost_once_it_has_been_silent_for_long) {
  const auto work = [](World& world) {
    const Region here = world.allocate("memory", line);
    const RemoteRegion there = world.attach(1 - world.rank(), "memory");
    world.bootstrap().put("pid/" + std::to_string(world.rank()), std::to_string(getpid()));
    world.bootstrap().fence(60s);  // both have attached
    if (world.rank() == 1) {
      raise(SIGSTOP);
      _exit(0);
    }
    expect_loss(world.wait_until([] { return false; }, world.deadline(), "the impossible"),
                "silent");
    kill(std::stoi(world.bootstrap().get("pid/1", 30s)), SIGCONT);
  };
  EXPECT_THAT(run(2, work, "verbs", 6s), Each(0));
}

TEST_F(Verbs, a_computing_peer_is_not_lost) {
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
  EXPECT_THAT(run(2, work, "verbs", 8s), Each(0));
}

// Revocation before reuse.
TEST_F(Verbs, what_a_peer_sends_that_was_given_up_reaches_no_memory) {
  const auto work = [](World& world) {
    constexpr std::size_t bytes = 1 << 20;
    End end(world);
    const Region here = end.allocate("memory", bytes);
    const RemoteRegion there = end.attach(1 - world.rank(), "memory");
    world.bootstrap().put("pid/" + std::to_string(world.rank()), std::to_string(getpid()));
    world.bootstrap().fence(30s);
    if (world.rank() == 1) {
      std::memset(here.data(), 1, bytes);
      Status status;
      // Until the queue pair at the other end is found to be gone.
      while (status) {
        for (std::size_t at = 0; status && at < bytes; at += bytes / 8) {
          status = end.transport->put_signal(there, at, here.data() + at, bytes / 8 - 8,
                                             at + bytes / 8 - 8, 0x0101010101010101);
        }
        (void)end.wait([&] { return end.transport->drained(0); });
      }
      EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
      world.bootstrap().put("ended", "yes");
    } else {
      const pid_t peer = std::stoi(world.bootstrap().get("pid/1", 30s));
      expect_ok(end.wait([&] { return here.word(bytes - 8) != 0; }));  // it is at it
      kill(peer, SIGSTOP);
      end.network->disconnect(1);
      std::memset(here.data(), 2, bytes);  // used again
      EXPECT_EQ(end.transport->put(there, 0, here.data(), 8).code(), Code::peer_lost);
      kill(peer, SIGCONT);
      (void)world.bootstrap().get("ended", 60s);
      const std::vector<std::byte> expected(bytes, std::byte{2});
      EXPECT_EQ(std::memcmp(here.data(), expected.data(), bytes), 0) << "it was overwritten";
    }
    world.goodbye();
  };
  EXPECT_THAT(run_ends(2, work), Each(0));
}

TEST_F(Verbs, the_next_life_of_a_peer_connects_and_the_former_one_reaches_nothing) {
  const auto work = [](World& world) {
    if (world.rank() == 0) {
      End end(world);
      const Region here = end.allocate("memory", 2 * line);
      (void)world.bootstrap().get("former", 30s);
      // A loss ends a wait, so the new life is waited for beside it.
      for (int i = 0; i < 60'000 && here.word(line) != 2; ++i) {
        std::this_thread::sleep_for(1ms);
        end.transport->drive();
      }
      EXPECT_EQ(here.word(line), 2u);
      EXPECT_EQ(here.word(0), 1u);
      expect_loss(end.wait([] { return false; }), "started again");
      world.bootstrap().put("seen", "yes");
      (void)world.bootstrap().get("tried", 60s);
      EXPECT_EQ(here.word(0), 1u) << "its former self wrote here";
    } else {
      End former(world);
      const RemoteRegion there = former.attach(0, "memory");
      expect_ok(former.transport->put_signal(there, 8, nullptr, 0, 0, 1));
      expect_ok(former.wait([&] { return former.transport->drained(0); }));
      world.bootstrap().put("former", "put");
      End next(world);
      const RemoteRegion same = next.attach(0, "memory");
      expect_ok(next.transport->put_signal(same, 8, nullptr, 0, line, 2));
      (void)world.bootstrap().get("seen", 60s);
      Status status;
      while (status) {
        status = former.transport->put_signal(there, 8, nullptr, 0, 0, 3);
        (void)former.wait([&] { return former.transport->drained(0); });
      }
      EXPECT_EQ(status.code(), Code::peer_lost);
      world.bootstrap().put("tried", "yes");
    }
    world.goodbye();
  };
  EXPECT_THAT(run_ends(2, work), Each(0));
}

TEST_F(Verbs, attaching_to_a_region_that_was_freed_names_its_owner) {
  const auto work = [](World& world) {
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
  };
  EXPECT_THAT(run(2, work, "verbs"), Each(0));
}

// ---- What transport auto puts together where there are several hosts: here each takes the other
// one for a worker of another host.

TEST_F(Verbs, memory_shared_within_a_host_is_written_through_verbs_from_others) {
  const auto work = [](World& world) {
    auto near = std::make_unique<ShmTransport>("shm");
    const auto doorbell = near->doorbell();
    VerbsOptions options = options_of(world.rank());
    options.doorbell = doorbell;
    MixedTransport mixed(std::move(near), make_verbs_transport(options),
                         [&world](int peer) { return peer == world.rank(); });
    EXPECT_EQ(mixed.name(), "shm+verbs");
    const auto driving = world.progress().serve(mixed, [] { return false; });
    constexpr std::size_t words = 1000;
    const Region here = mixed.allocate(line + 8 * words, Bell::worker, gpu::host);
    const int peer = 1 - world.rank();
    world.bootstrap().put("key/" + std::to_string(world.rank()), here.key());
    const RemoteRegion there =
        mixed.attach(peer, world.bootstrap().get("key/" + std::to_string(peer), 30s));
    EXPECT_FALSE(there.mapped());
    EXPECT_TRUE(mixed.attach(world.rank(), here.key()).mapped());
    std::vector<std::byte> payload(8 * words);
    fill(payload.data(), words, 7);
    expect_ok(mixed.put_signal(there, line, payload.data(), 8 * words, 0, 7));
    RealWaiter waiter(doorbell, std::make_shared<RealClock>(), std::make_shared<AbortToken>(), 50us,
                      &mixed);
    const auto came = [&] { return here.word(0) == 7 && mixed.drained(peer); };
    expect_ok(waiter.wait(came, RealClock().now() + 30s));
    EXPECT_TRUE(is_whole(here.data() + line, words, 7));
    world.bootstrap().fence(30s);  // the peer has what was put, and lets go
  };
  EXPECT_THAT(run_ends(2, work), Each(0));
}

// ---- Several devices.

/// Two workers write to each other over the devices that they should take.
void expect_transfer(World& world, const VerbsOptions& options, const std::string& device) {
  auto made = make_verbs_transport(options);
  EXPECT_THAT(made->description(), ::testing::StartsWith(device + " port 1"));
  testing::End end(world, std::move(made));
  const Region here = end.allocate("memory", line);
  const RemoteRegion there = end.attach(1 - world.rank(), "memory");
  expect_ok(end.transport->put_signal(there, 0, nullptr, 0, 0, 5));
  expect_ok(end.wait([&] { return here.word(0) == 5; }));
  world.bootstrap().fence(30s);
  world.goodbye();
}

TEST_F(Verbs, another_device_serves_those_who_ask_for_it) {
  const std::string missing = verbs_status({.device = "rxe1"}).unusable;
  if (!missing.empty()) GTEST_SKIP() << missing;
  const auto work = [](World& world) {
    VerbsOptions options = options_of(world.rank());
    options.settings.device = "rxe1";
    options.nearest = [] { return "rxe0"; };
    expect_transfer(world, options, "rxe1");
  };
  EXPECT_THAT(run_ends(2, work), Each(0));
}

TEST_F(Verbs, each_worker_takes_the_device_that_is_nearest_to_it) {
  if (std::getenv("SLIP_TEST_RDMA") != nullptr) {
    GTEST_SKIP() << "devices of Soft-RoCE on one host do not reach each other";
  }
  const auto work = [](World& world) {
    const std::string nearest = world.rank() == 0 ? "rxe1" : "rxe0";
    VerbsOptions options = options_of(world.rank());
    options.nearest = [nearest] { return nearest; };
    expect_transfer(world, options, nearest);
  };
  EXPECT_THAT(run_ends(2, work), Each(0));
}

// ---- What is wrong with a set-up.

TEST_F(Verbs, a_worker_that_does_not_answer_is_named_with_what_to_choose) {
  const auto work = [](World& world) {
    VerbsOptions options = options_of(world.rank());
    options.connect_timeout = 1s;
    if (world.rank() == 0) (void)End(world, options).allocate("memory", line);
    world.bootstrap().fence(30s);
    if (world.rank() == 0) return;
    End end(world, options);
    try {
      (void)end.attach(0, "memory");
      ADD_FAILURE() << "attached";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::timeout);
      EXPECT_THAT(error.what(),
                  AllOf(HasSubstr("rank 1: waited 1 s for rank 0 (GID ::ffff:10.9.0.1)"),
                        HasSubstr("(SLIP_VERBS_DEVICE, SLIP_VERBS_GID)")));
    }
  };
  EXPECT_THAT(run_ends(2, work), Each(0));
}

std::string refusal(const VerbsSettings& settings) {
  const VerbsStatus status = verbs_status(settings);
  EXPECT_THAT(status.unusable, ::testing::Not(HasSubstr("\n")));
  return status.unusable;
}

TEST_F(Verbs, a_wrong_device_port_gid_or_partition_is_named_with_what_there_is) {
  EXPECT_THAT(refusal({.device = "mlx5_7"}),
              AllOf(HasSubstr("SLIP_VERBS_DEVICE is 'mlx5_7'"), HasSubstr("rxe0")));
  EXPECT_THAT(refusal({.port = 3}), AllOf(HasSubstr("SLIP_VERBS_PORT is 3"), HasSubstr("port 1")));
  EXPECT_THAT(refusal({.gid = 200}),
              AllOf(HasSubstr("SLIP_VERBS_GID is 200"), HasSubstr("::ffff:10.9.0.1")));
  EXPECT_THAT(refusal({.pkey = 0x1234}),
              AllOf(HasSubstr("SLIP_VERBS_PKEY is 0x1234"), HasSubstr("0xffff")));
  EXPECT_THAT(refusal({.mtu = 4096}), "");
}

TEST_F(Verbs, peers_with_different_packet_sizes_are_named_with_both) {
  const auto work = [](World& world) {
    VerbsOptions options = options_of(world.rank());
    options.settings.mtu = world.rank() == 0 ? 4096 : 1024;
    End end(world, options);
    const Region here = end.allocate("memory", line);
    try {
      (void)end.attach(1 - world.rank(), "memory");
      ADD_FAILURE() << "attached";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::peer_mismatch);
      EXPECT_THAT(error.what(),
                  AllOf(HasSubstr("4096"), HasSubstr("1024"), HasSubstr("SLIP_VERBS_MTU=1024")));
    }
    world.goodbye();
  };
  EXPECT_THAT(run_ends(2, work), Each(0));
}

/// Of this process, for good.
void may_lock_little() {
  const rlimit limit{1 << 16, 1 << 16};
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  ASSERT_EQ(syscall(SYS_capget, &header, data.data()), 0);
  data[CAP_IPC_LOCK / 32].effective &= ~(1u << CAP_IPC_LOCK % 32);
  ASSERT_EQ(syscall(SYS_capset, &header, data.data()), 0);
}

TEST_F(Verbs, memory_that_may_not_be_locked_is_an_error_that_says_how_to_allow_it) {
  const auto work = [](World& world) {
    setenv("FAKE_VERBS_LOCKS", "1", 1);
    may_lock_little();
    try {
      End end(world);
      (void)end.allocate("memory", 1 << 22);
      ADD_FAILURE() << "allocated";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::out_of_memory);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("65536 bytes"), HasSubstr("ulimit -l")));
    }
    world.goodbye();
  };
  EXPECT_THAT(run_ends(1, work), Each(0));
}

}  // namespace
}  // namespace slip
