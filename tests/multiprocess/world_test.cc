// Worlds of real processes: how they end, in order and otherwise.

#include "slipstream/runtime/world.h"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <stdexcept>
#include <string>
#include <vector>

#include "conformance.h"
#include "shared_memory_names.h"
#include "slipstream/runtime/launcher.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSubsetOf;

class WorldTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_THAT(shared_memory.left(), IsEmpty()); }

  static std::vector<int> run(int workers, const testing::Work& work) {
    testing::RunOptions options;
    options.world.wait_timeout = 60s;
    return testing::run_processes(workers, work, options);
  }
  static void expect_good_ends(const std::vector<int>& ends, int but = -1) {
    for (int rank = 0; rank < static_cast<int>(ends.size()); ++rank) {
      if (rank != but) {
        EXPECT_EQ(ends[static_cast<std::size_t>(rank)], 0) << "rank " << rank;
      }
    }
  }

  const SharedMemoryNames shared_memory{"slip"};
};

/// Returns once every worker has come here. The next computation is longer than anybody spins:
/// those who wait meanwhile are parked.
void meet(World& world) {
  world.bootstrap().fence(60s);
  world.set_compute_time(20ms);
}

void expect_lost(const Status& status, World& world, int peer) {
  EXPECT_EQ(status.code(), Code::peer_lost);
  EXPECT_EQ(status.peer(), peer);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("rank " + std::to_string(world.rank())),
                                      HasSubstr("lost rank " + std::to_string(peer))));
}

TEST_F(WorldTest, processes_know_that_they_share_a_host_and_bind_to_its_cores) {
  const auto ends = run(3, [](World& world) {
    const std::vector<int> allowed = allowed_cpus();
    const Topology& topology = world.topology();
    EXPECT_EQ(topology.size(), 3);
    EXPECT_THAT(topology.workers_of(0), ElementsAre(0, 1, 2));
    EXPECT_NE(topology.distance(0, 2), Distance::network);
    EXPECT_TRUE(world.bind().ok());
    EXPECT_EQ(allowed_cpus(), topology.core(world.rank()).cpus);
    EXPECT_THAT(allowed_cpus(), IsSubsetOf(allowed));
  });
  expect_good_ends(ends);
}

TEST_F(WorldTest, processes_that_are_restricted_to_some_cpus_share_these_alone) {
  const std::vector<int> all = allowed_cpus();
  const std::vector<int> last = {all.back()};
  ASSERT_TRUE(bind_thread(last).ok());  // which the workers inherit
  const auto ends = run(2, [&](World& world) {
    EXPECT_EQ(world.topology().core(1 - world.rank()).cpus, last);
    EXPECT_TRUE(world.bind().ok());
    EXPECT_EQ(allowed_cpus(), last);
  });
  ASSERT_TRUE(bind_thread(all).ok());
  expect_good_ends(ends);
}

TEST_F(WorldTest, a_killed_peer_wakes_those_who_are_parked_and_is_named) {
  const auto ends = run(4, [](World& world) {
    const Region region = world.allocate("memory", 1 << 20);
    meet(world);
    if (world.rank() == 2) {
      world.compute([] {});
      raise(SIGKILL);
    }
    const Status status = world.wait_until([] { return false; }, world.deadline(), "a dead peer");
    expect_lost(status, world, 2);
    EXPECT_TRUE(world.aborted());
    EXPECT_EQ(world.status().code(), Code::peer_lost);
  });
  expect_good_ends(ends, 2);
  EXPECT_TRUE(WIFSIGNALED(ends[2]) && WTERMSIG(ends[2]) == SIGKILL);
}

TEST_F(WorldTest, a_killed_peer_ends_a_computation_at_its_next_wait) {
  const auto ends = run(2, [](World& world) {
    meet(world);
    if (world.rank() == 0) raise(SIGKILL);
    world.compute([] {});
    expect_lost(world.wait_until([] { return false; }, world.deadline(), "a dead peer"), world, 0);
  });
  expect_good_ends(ends, 0);
}

TEST_F(WorldTest, a_peer_that_leaves_with_an_exception_ends_the_others) {
  const auto ends = run(3, [](World& world) {
    meet(world);
    if (world.rank() == 1) throw std::runtime_error("on purpose");
    expect_lost(world.wait_until([] { return false; }, world.deadline(), "it"), world, 1);
  });
  expect_good_ends(ends, 1);
  EXPECT_TRUE(WIFEXITED(ends[1]) && WEXITSTATUS(ends[1]) == 2);
}

TEST_F(WorldTest, a_peer_killed_at_set_up_ends_the_set_up_of_the_others) {
  const auto ends = run(2, [](World& world) {
    if (world.rank() == 1) {
      world.compute([] {});
      raise(SIGKILL);
    }
    try {
      (void)world.attach(1, "never");
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::peer_lost);
      EXPECT_EQ(error.peer(), 1);
      EXPECT_THAT(error.what(), HasSubstr("rank 1"));
    }
  });
  expect_good_ends(ends, 1);
}

TEST_F(WorldTest, a_peer_killed_before_its_goodbye_is_named_to_those_who_wait_in_theirs) {
  const auto ends = run(3, [](World& world) {
    meet(world);
    if (world.rank() == 0) {
      world.compute([] {});
      raise(SIGKILL);
    }
    try {
      world.goodbye();
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::peer_lost);
      EXPECT_EQ(error.peer(), 0);
    }
  });
  expect_good_ends(ends, 0);
}

TEST_F(WorldTest, goodbye_waits_for_a_late_worker_who_may_still_write) {
  const auto ends = run(3, [](World& world) {
    const Region region = world.allocate("memory", 64);
    const RemoteRegion first = world.attach(0, "memory");
    if (world.rank() == 2) {
      world.set_compute_time(100ms);
      world.compute([] {});
      EXPECT_TRUE(world.transport().put_signal(first, 0, nullptr, 0, 0, 77).ok());
    }
    world.goodbye();
    if (world.rank() == 0) {
      EXPECT_EQ(region.word(0), 77u);
    }
    EXPECT_FALSE(world.aborted());
  });
  expect_good_ends(ends);
}

TEST_F(WorldTest, who_has_said_goodbye_may_end_while_others_still_work) {
  const auto ends = run(3, [](World& world) {
    world.goodbye();
    if (world.rank() == 0) return;  // its process ends now
    world.compute([] {});
    world.set_compute_time(50ms);
    world.compute([] {});
    EXPECT_FALSE(world.aborted()) << world.status().message();
  });
  expect_good_ends(ends);
}

TEST_F(WorldTest, a_world_without_a_launcher_is_a_world_of_one) {
  const auto ends = run(1, [](World&) {
    unsetenv("SLIP_RENDEZVOUS");
    const World alone = World::connect();
    EXPECT_EQ(alone.rank(), 0);
    EXPECT_EQ(alone.size(), 1);
    alone.goodbye();
  });
  expect_good_ends(ends);
}

TEST_F(WorldTest, sixteen_workers_meet_on_few_processors) {
  const auto ends = run(16, [](World& world) {
    const Region region = world.allocate("memory", 64 * 16);
    const auto lane = 64 * static_cast<std::size_t>(world.rank());
    for (int peer = 0; peer < 16; ++peer) {
      const RemoteRegion remote = world.attach(peer, "memory");
      EXPECT_TRUE(world.transport().put_signal(remote, 0, nullptr, 0, lane, 1).ok());
    }
    for (std::size_t peer = 0; peer < 16; ++peer) {
      const Status status =
          world.wait_until([&] { return region.word(64 * peer) == 1; }, world.deadline(), "a peer");
      EXPECT_TRUE(status.ok()) << status.message();
    }
  });
  expect_good_ends(ends);
}

TEST(World, WaitsForOthersAsLongAsTheEnvironmentSays) {
  EXPECT_EQ(join_timeout(5s), 5s);
  setenv("SLIP_JOIN_TIMEOUT", "0.25", 1);
  EXPECT_EQ(join_timeout(5s), 250ms);
  for (const char* wrong : {"0", "-1", "nan", "1e6", "30s"}) {
    setenv("SLIP_JOIN_TIMEOUT", wrong, 1);
    try {
      World::connect();
      ADD_FAILURE() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      EXPECT_THAT(error.what(), HasSubstr("SLIP_JOIN_TIMEOUT is '" + std::string(wrong)));
    }
  }
  unsetenv("SLIP_JOIN_TIMEOUT");
}

}  // namespace
}  // namespace slip
