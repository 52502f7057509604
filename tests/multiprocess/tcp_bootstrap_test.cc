// What members of a rendezvous do there: publish, wait, meet, leave.

#include "slipstream/runtime/tcp_bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include "raw_peers.h"
#include "reserved_port.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/rendezvous_server.h"
#include "slipstream/runtime/rendezvous_wire_internal.h"
#include "tcp_support.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
namespace wire = rendezvous_wire;

class TcpBootstrapTest : public TcpTest {};

TEST_F(TcpBootstrapTest, GetWaitsForWhatAnotherWorkerPublishes) {
  RendezvousServer server("127.0.0.1", 0, 2);
  in_threads(2, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, 2));
    if (rank == 0) {
      EXPECT_EQ(bootstrap.get("late", patience), "value");
      bootstrap.put("answer", "seen");
    } else {
      std::this_thread::sleep_for(50ms);
      bootstrap.put("late", "value");
      EXPECT_EQ(bootstrap.get("answer", patience), "seen");
    }
  });
  EXPECT_TRUE(server.failure().ok());
  EXPECT_EQ(log(), "");
}

TEST_F(TcpBootstrapTest, ValuesAreBytesOfAnyKindFromNoneTo16MiB) {
  RendezvousServer server("127.0.0.1", 0, 2);
  std::string large(wire::max_value_bytes, '\0');
  Random random(7);
  for (char& c : large) c = static_cast<char>(random());
  in_threads(2, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, 2));
    if (rank == 0) {
      bootstrap.put("empty", "");
      bootstrap.put("large", large);
      const Status status = failure_of([&] { bootstrap.put("larger", large + "x"); });
      EXPECT_EQ(status.code(), Code::bootstrap_failed);
      EXPECT_THAT(status.message(), AllOf(HasSubstr("'larger'"), HasSubstr("16777216")));
    }
    EXPECT_EQ(bootstrap.get("empty", patience), "");
    EXPECT_TRUE(bootstrap.get("large", patience) == large);
    EXPECT_EQ(failure_of([&] { bootstrap.get("", patience); }).code(), Code::bootstrap_failed);
    EXPECT_EQ(failure_of([&] { bootstrap.get(std::string(257, 'n'), patience); }).code(),
              Code::bootstrap_failed);
  });
  EXPECT_TRUE(server.failure().ok());
}

TEST_F(TcpBootstrapTest, NoWorkerPassesAFenceBeforeAllHaveComeToIt) {
  constexpr int size = 32, fences = 20;
  RendezvousServer server("127.0.0.1", 0, size);
  std::atomic<int> arrivals = 0;
  in_threads(size, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, size));
    for (int k = 1; k <= fences; ++k) {
      ++arrivals;
      bootstrap.fence(patience);
      EXPECT_GE(arrivals.load(), k * size);
    }
  });
  EXPECT_TRUE(server.failure().ok());
}

TEST_F(TcpBootstrapTest, ANameIsWrittenOnce) {
  RendezvousServer server("127.0.0.1", 0, 2);
  TcpBootstrap zero(options_for(server.port(), 0, 2)), one(options_for(server.port(), 1, 2));
  zero.put("name", "first");
  const Status status = failure_of([&] { one.put("name", "second"); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 published 'name', which rank 0 had"));
  EXPECT_EQ(one.get("name", patience), "first");
}

TEST_F(TcpBootstrapTest, AGetThatTimesOutSaysWhatItWaitedForAndWhoNeverJoined) {
  RendezvousServer server("127.0.0.1", 0, 4);
  TcpBootstrap zero(options_for(server.port(), 0, 4)), two(options_for(server.port(), 2, 4));
  const Status status = failure_of([&] { zero.get("missing", 50ms); });
  EXPECT_EQ(status.code(), Code::timeout);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("waited 0.05 s for 'missing'"),
                                      HasSubstr("ranks 1, 3 never joined")));
  two.put("missing", "found");
  EXPECT_EQ(zero.get("missing", patience), "found");
}

TEST_F(TcpBootstrapTest, AServerThatIsLateWithItsAnswerIsStillHeard) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const FileDescriptor in(ends[0]);
  FileDescriptor out(ends[1]);
  const pid_t process = fork();
  ASSERT_GE(process, 0);
  if (process == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      RendezvousServer server("127.0.0.1", 0, 1);
      const int port = server.port();
      [[maybe_unused]] const auto bytes = write(out.get(), &port, sizeof port);
      for (;;) pause();
    } catch (...) {
      _exit(1);
    }
  }
  out.reset();
  int port = 0;
  ASSERT_EQ(read(in.get(), &port, sizeof port), static_cast<ssize_t>(sizeof port));
  TcpBootstrap zero(options_for(port, 0, 1));
  kill(process, SIGSTOP);
  std::jthread host([process] {
    std::this_thread::sleep_for(2500ms);
    kill(process, SIGCONT);
  });
  EXPECT_THAT(failure_of([&] { zero.get("missing", 100ms); }).message(),
              HasSubstr("waited 0.1 s for 'missing'"));
  host.join();
  kill(process, SIGKILL);
  waitpid(process, nullptr, 0);
}

TEST_F(TcpBootstrapTest, AFenceThatTimesOutNamesTheMissingToAllThatWaitAndCanBeTriedAgain) {
  RendezvousServer server("127.0.0.1", 0, 3);
  RawClient two(server.port());
  const std::string fence = wire::encode(wire::Request{wire::Kind::fence, patience});
  // Said at once: whoever gets what it put finds it in its fence.
  std::string heard = two.join(wire::Hello{2, 3, 1}, "",
                               wire::encode(wire::Request{wire::Kind::put, {}, "coming"}) + fence);
  TcpBootstrap zero(options_for(server.port(), 0, 3)), one(options_for(server.port(), 1, 3));
  zero.get("coming", patience);
  const Status status = failure_of([&] { zero.fence(300ms); });
  EXPECT_EQ(status.code(), Code::timeout);
  const std::string why = "a fence waited 0.3 s for rank 1";
  EXPECT_THAT(status.message(), testing::EndsWith(": " + why));

  // Rank 2 would wait much longer, but shares the end of rank 0's patience.
  const std::string told =
      wire::encode(wire::Answer{wire::Kind::done}) +
      wire::encode(wire::Answer{wire::Kind::refused, {}, Status(Code::timeout, why)});
  const std::size_t all =
      wire::encode(wire::Welcome{0, std::string(proof_bytes, 0)}).size() + told.size();
  if (heard.size() < all) heard += two.hear(all - heard.size());
  EXPECT_THAT(heard, testing::EndsWith(told));

  two.say(fence);
  in_threads(2, [&](int rank) { (rank == 0 ? zero : one).fence(patience); });
}

TEST_F(TcpBootstrapTest, ALostWorkerFailsWhatOthersWaitForAndAllTheyAskLater) {
  RendezvousServer server("127.0.0.1", 0, 4);
  std::optional<RawClient> three(std::in_place, server.port());
  three->join(wire::Hello{3, 4, 1});
  std::atomic<int> waiting = 0;
  std::jthread killer([&] {
    while (waiting < 3) std::this_thread::sleep_for(1ms);
    three.reset();
  });
  in_threads(3, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, 4));
    ++waiting;
    const auto ask = [&] {
      if (rank == 0) bootstrap.get("never", patience);
      if (rank == 1) bootstrap.fence(patience);
      for (int i = 0; rank == 2; ++i) bootstrap.put(std::to_string(i), "");
    };
    for (int attempt = 0; attempt < 3; ++attempt) {
      const Status status = failure_of(ask);
      EXPECT_EQ(status.code(), Code::peer_lost);
      EXPECT_EQ(status.peer(), 3);
      EXPECT_THAT(status.message(), AllOf(HasSubstr("rank 3 "),
                                          HasSubstr("left the rendezvous before it said goodbye")));
    }
  });
  EXPECT_EQ(server.failure().peer(), 3);
  const Status late = failure_of([&] { TcpBootstrap(options_for(server.port(), 3, 4)); });
  EXPECT_EQ(late.code(), Code::peer_lost);
  EXPECT_EQ(late.peer(), 3);
}

TEST_F(TcpBootstrapTest, AWorkerThatFailsWithAnExceptionIsLost) {
  RendezvousServer server("127.0.0.1", 0, 2);
  TcpBootstrap zero(options_for(server.port(), 0, 2));
  EXPECT_THROW(
      {
        TcpBootstrap one(options_for(server.port(), 1, 2));
        throw std::runtime_error("the user's own failure");
      },
      std::runtime_error);
  EXPECT_EQ(failure_of([&] { zero.fence(patience); }).peer(), 1);
}

TEST_F(TcpBootstrapTest, AGoodbyeIsNoLossButEndsFences) {
  RendezvousServer server("127.0.0.1", 0, 2);
  TcpBootstrap zero(options_for(server.port(), 0, 2));
  { TcpBootstrap(options_for(server.port(), 1, 2)).put("legacy", "kept"); }
  EXPECT_EQ(zero.get("legacy", patience), "kept");
  const Status status = failure_of([&] { zero.fence(patience); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 said goodbye"));
  EXPECT_TRUE(server.failure().ok());
}

TEST_F(TcpBootstrapTest, ALauncherCanReportAWorkerThatDiedBeforeItJoined) {
  RendezvousServer server("127.0.0.1", 0, 2);
  TcpBootstrap zero(options_for(server.port(), 0, 2));
  server.report_lost(1, "rank 1 exited with status 1");
  const Status status = failure_of([&] { zero.fence(patience); });
  EXPECT_EQ(status.code(), Code::peer_lost);
  EXPECT_EQ(status.peer(), 1);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 exited with status 1"));
}

TEST_F(TcpBootstrapTest, AGatherGivesEveryValueToEveryWorkerByRank) {
  RendezvousServer server("127.0.0.1", 0, 3);
  in_threads(3, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, 3));
    for (int round = 0; round < 3; ++round) {
      // An empty value, too, and the same name again.
      const auto value = [&](int of) {
        return std::string(static_cast<std::size_t>(of), 'a' + round);
      };
      EXPECT_THAT(bootstrap.all_gather("name", value(rank), patience),
                  ElementsAre(value(0), value(1), value(2)));
    }
    bootstrap.fence(patience);
  });
  EXPECT_TRUE(server.failure().ok());
}

TEST_F(TcpBootstrapTest, AGatherThatMissesAWorkerNamesIt) {
  RendezvousServer server("127.0.0.1", 0, 3);
  std::barrier both(2);
  in_threads(2, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, 3));
    both.arrive_and_wait();
    const Status status = failure_of([&] { bootstrap.all_gather("name", "", 1s); });
    EXPECT_EQ(status.code(), Code::timeout);
    EXPECT_THAT(status.message(), HasSubstr("rank 2 never joined"));
    both.arrive_and_wait();
  });
}

TEST_F(TcpBootstrapTest, WorkersThatMeetInDifferentPlacesAreTold) {
  RendezvousServer server("127.0.0.1", 0, 2);
  RawClient zero(server.port());
  // Said at once: whoever gets what it put finds it in its fence.
  zero.join(wire::Hello{0, 2, 1}, "",
            wire::encode(wire::Request{wire::Kind::put, {}, "coming"}) +
                wire::encode(wire::Request{wire::Kind::fence, patience}));
  TcpBootstrap one(options_for(server.port(), 1, 2));
  one.get("coming", patience);
  EXPECT_THAT(failure_of([&] { one.all_gather("name", "", patience); }).message(),
              HasSubstr("rank 1 came to the gather 'name' while rank 0 waited in another"));
  one.fence(patience);  // where rank 0 still waits
}

TEST_F(TcpBootstrapTest, TheWorkerThatServesStaysUntilTheOthersHaveLeft) {
  const ReservedPort port;
  in_threads(2, [&](int rank) {
    auto options = options_for(port.number(), rank, 2);
    options.serve = rank == 0;
    TcpBootstrap bootstrap(options);
    if (rank == 0) bootstrap.put("name", "value");
    bootstrap.fence(patience);
    if (rank == 1) {
      std::this_thread::sleep_for(100ms);
      EXPECT_EQ(bootstrap.get("name", patience), "value");
    }
  });
}

TEST_F(TcpBootstrapTest, TheEndOfTheServerIsNamed) {
  for (const int served_by : {-1, 0}) {
    auto server = std::make_unique<RendezvousServer>("127.0.0.1", 0, 2, served_by);
    TcpBootstrap one(options_for(server->port(), 1, 2));
    std::jthread ender([&] {
      std::this_thread::sleep_for(50ms);
      server.reset();
    });
    const Status status = failure_of([&] { one.fence(patience); });
    EXPECT_EQ(status.peer(), served_by);
    EXPECT_THAT(status.message(), HasSubstr(served_by == 0 ? "rank 0, which serves it, is gone"
                                                           : "the launcher, which serves it"));
    EXPECT_EQ(failure_of([&] { one.put("later", ""); }).message(), status.message());
  }
}

}  // namespace
}  // namespace slip
