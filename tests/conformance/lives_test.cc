// Peers that end, that are stopped and given up, and that come again: one body for every backend
// whose workers are processes. What shared memory cannot notice by itself, process descriptors do
// (world_test).

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "conformance.h"
#include "ends.h"
#include "slipstream/transport/shm/shm_transport.h"
#include "slipstream/transport/ucx/ucx_transport.h"
#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

/// What processes tell each other beside their transports: a loss ends their world.
class Board {
 public:
  Board() {
    void* const memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared_ = new (memory) Shared;
  }
  ~Board() { munmap(shared_, sizeof(Shared)); }
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;

  /// Never back: another may have come further already.
  void reach(int stage) const {
    int reached = shared_->stage.load(std::memory_order_relaxed);
    while (reached < stage &&
           !shared_->stage.compare_exchange_weak(reached, stage, std::memory_order_acq_rel)) {
    }
  }
  bool has_reached(int stage) const {
    return shared_->stage.load(std::memory_order_acquire) >= stage;
  }
  void await(int stage) const {
    for (int i = 0; i < 60'000 && !has_reached(stage); ++i) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(has_reached(stage)) << "the others have not come to stage " << stage;
  }
  /// Read by whoever has awaited a later stage.
  std::string key() const { return {shared_->key, shared_->key_bytes}; }
  void set_key(const std::string& key) const {
    ASSERT_LE(key.size(), sizeof shared_->key);
    shared_->key_bytes = key.size();
    std::memcpy(shared_->key, key.data(), key.size());
  }
  std::atomic<pid_t>& pid() const { return shared_->pid; }

 private:
  struct Shared {
    std::atomic<int> stage{0};  // pairs with itself: what was written before it is visible
    std::atomic<pid_t> pid{0};
    std::size_t key_bytes = 0;
    char key[8192];
  };
  Shared* shared_;
};

class Lives : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "verbs") {
      const std::string missing = verbs_status(verbs_settings_from_environment()).unusable;
      if (!missing.empty()) GTEST_SKIP() << missing;
    } else if (is_network() && !SLIP_HAVE_UCX) {
      GTEST_SKIP() << "built without UCX";
    }
  }

  static bool is_network() { return GetParam() != "shm"; }

  static std::unique_ptr<Transport> make(int rank) {
    if (GetParam() == "shm") return std::make_unique<ShmTransport>("shm");
    if (GetParam() == "verbs") {
      VerbsOptions options;
      options.rank = rank;
      options.workers = 3;
      options.peer_timeout = 10s;
      options.connect_timeout = 20s;
      options.settings = verbs_settings_from_environment();
      return make_verbs_transport(options);
    }
    return make_ucx_transport({.rank = rank, .peer_timeout = 10s, .connect_timeout = 20s});
  }

  static std::vector<int> run(int workers, const Work& work) {
    RunOptions options;
    options.world.transport = "shm";
    if (GetParam() == "ucx_tcp") options.environment = {{"UCX_TLS", "tcp"}};
    if (GetParam() == "ucx_posix") options.environment = {{"UCX_TLS", "self,posix"}};
    return run_processes(workers, work, options);
  }

  const Board board_;
};

constexpr std::size_t line = 64;

/// Until a word has come or time is over: a loss ends an End's wait, and shared memory has none.
bool await(End& end, const Region& region, std::size_t word, Word wanted) {
  for (int i = 0; i < 30'000 && region.word(word) != wanted; ++i) {
    std::this_thread::sleep_for(1ms);
    end.transport->drive();
  }
  return region.word(word) == wanted;
}

// Ranks 0 and 1, and a third process that plays the next life of rank 1.
TEST_P(Lives, a_stopped_peer_that_was_given_up_damages_nothing_and_its_next_life_connects) {
  constexpr std::size_t bytes = std::size_t{1} << 20;
  enum { putting = 1, given_up, connected, continued, over };
  const auto work = [this](World& world) {
    if (world.rank() == 0) {
      End end(world, make(0));
      auto here = std::make_unique<Region>(end.allocate("memory", bytes));
      board_.await(putting);
      EXPECT_TRUE(await(end, *here, 0, 1));
      kill(board_.pid(), SIGSTOP);
      if (end.network != nullptr) end.network->disconnect(1);
      here.reset();  // its memory is for others now
      const Region again = end.transport->allocate(bytes + line, Bell::worker);
      std::memset(again.data(), 2, bytes);
      board_.set_key(again.key());
      board_.reach(given_up);
      EXPECT_TRUE(await(end, again, bytes, 3)) << "the next life did not connect";
      board_.await(connected);
      kill(board_.pid(), SIGCONT);
      board_.reach(continued);
      board_.await(over);
      const std::vector<std::byte> expected(bytes, std::byte{2});
      EXPECT_EQ(std::memcmp(again.data(), expected.data(), bytes), 0) << "it was overwritten";
      EXPECT_EQ(again.word(bytes), 3u);
    } else if (world.rank() == 1) {
      End former(world, make(1));
      const RemoteRegion there = former.attach(0, "memory");
      const std::vector<std::byte> ones(bytes / 8, std::byte{1});
      board_.pid() = getpid();
      Status status;
      const auto put_all = [&] {
        for (std::size_t at = line; status && at + ones.size() <= bytes; at += ones.size()) {
          status = former.transport->put_signal(there, at, ones.data(), ones.size(), 0, 1);
        }
        for (int i = 0; i < 100 && !former.transport->drained(0); ++i) {
          former.transport->drive();
          std::this_thread::sleep_for(1ms);
        }
      };
      board_.reach(putting);
      while (status && !board_.has_reached(continued)) put_all();
      for (int i = 0; status && i < 50; ++i) put_all();
      board_.reach(over);
    } else {
      board_.await(given_up);
      End next(world, make(1), 1);
      const RemoteRegion there = next.transport->attach(0, board_.key());
      expect_ok(next.transport->put_signal(there, 0, nullptr, 0, bytes, 3));
      for (int i = 0; i < 10'000 && !next.transport->drained(0); ++i) {
        next.transport->drive();
        std::this_thread::sleep_for(1ms);
      }
      board_.reach(connected);
      board_.await(over);
    }
  };
  EXPECT_THAT(run(3, work), ::testing::Each(0));
}

TEST_P(Lives, a_peer_killed_in_the_middle_of_puts_is_lost_and_its_next_life_connects) {
  if (!is_network()) GTEST_SKIP() << "process descriptors tell";
  constexpr std::size_t bytes = std::size_t{1} << 20;
  enum { attached = 1, noticed, over };
  const auto work = [this](World& world) {
    if (world.rank() == 0) {
      End end(world, make(0));
      const Region here = end.allocate("memory", bytes);
      board_.set_key(here.key());
      const RemoteRegion there = end.attach(1, "memory");
      board_.reach(attached);
      const Status lost = end.wait([] { return false; });
      EXPECT_EQ(lost.code(), Code::peer_lost) << lost.message();
      EXPECT_EQ(lost.peer(), 1);
      EXPECT_THAT(lost.message(), AllOf(HasSubstr("rank 0"), HasSubstr("lost rank 1")));
      EXPECT_EQ(end.transport->put(there, 0, here.data(), 8).code(), Code::peer_lost);
      board_.reach(noticed);
      EXPECT_TRUE(await(end, here, 0, 3)) << "the next life did not connect";
      board_.reach(over);
    } else if (world.rank() == 1) {
      End former(world, make(1));
      const Region memory = former.allocate("memory", bytes);
      const RemoteRegion there = former.attach(0, "memory");
      board_.await(attached);
      for (int i = 0; i < 8; ++i) {
        expect_ok(former.transport->put(there, 0, memory.data(), bytes));
      }
      raise(SIGKILL);
    } else {
      board_.await(noticed);
      End next(world, make(1), 1);
      const RemoteRegion there = next.transport->attach(0, board_.key());
      expect_ok(next.transport->put_signal(there, 0, nullptr, 0, 0, 3));
      board_.await(over);
    }
  };
  const std::vector<int> ends = run(3, work);
  EXPECT_EQ(ends[0], 0);
  EXPECT_EQ(WTERMSIG(ends[1]), SIGKILL);
  EXPECT_EQ(ends[2], 0);
}

INSTANTIATE_TEST_SUITE_P(Backends, Lives, ::testing::Values("shm", "ucx_tcp", "ucx_posix", "verbs"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace slip::testing
