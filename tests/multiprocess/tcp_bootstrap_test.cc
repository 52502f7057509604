#include "slipstream/runtime/tcp_bootstrap.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/runtime/invitation.h"
#include "slipstream/runtime/rendezvous_server.h"
#include "slipstream/runtime/rendezvous_wire_internal.h"
#include "slipstream/runtime/secret_internal.h"
#include "slipstream/runtime/socket_internal.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
namespace wire = rendezvous_wire;

constexpr Duration patience = 30s;

Status failure_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.status();
  }
  return {};
}

void in_threads(int count, const std::function<void(int)>& run) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&run, i] { run(i); });
}

TcpBootstrap::Options options_for(int port, int rank, int size, Duration timeout = patience) {
  return {.host = "127.0.0.1", .port = port, .rank = rank, .size = size, .timeout = timeout};
}

/// A connection that says what it likes.
class RawClient {
 public:
  explicit RawClient(int port)
      : socket_(connect_to("127.0.0.1", port, deadline_after(patience)).socket) {}

  void say(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0 && errno != EAGAIN) return;
      if (count > 0) bytes.remove_prefix(static_cast<std::size_t>(count));
    }
  }

  /// At least `count` bytes, or all there is until the connection is closed.
  std::string hear(std::size_t count) {
    std::string heard;
    char buffer[4096];
    while (heard.size() < count) {
      EXPECT_TRUE(wait_ready(socket_.get(), POLLIN, deadline_after(patience)));
      const ssize_t got = recv(socket_.get(), buffer, sizeof buffer, 0);
      if (got <= 0) break;
      heard.append(buffer, static_cast<std::size_t>(got));
    }
    return heard;
  }

  std::string hear_all() { return hear(std::string::npos); }

  /// Says who it is, and that it knows the secret; then `more`. Returns the answer to the proof, or
  /// all that it heard in place of a challenge.
  std::string join(const wire::Hello& hello, const std::string& secret = "",
                   const std::string& more = "") {
    const std::string said = wire::encode(hello);
    say(said);
    const std::string greeting =
        hear(wire::preamble_bytes + wire::encode_challenge(new_nonce()).size());
    const auto frame = wire::first_frame(std::string_view(greeting).substr(wire::preamble_bytes));
    if (!frame || frame->kind != wire::Kind::challenge) return greeting + hear_all();
    const std::string nonce = new_nonce();
    const std::string challenge = wire::decode_challenge(*frame);
    say(wire::encode(wire::Proof{nonce, wire::worker_proof(secret, challenge, nonce, said)}) +
        more);
    const std::string answer =
        hear(wire::encode(wire::Welcome{0, std::string(proof_bytes, 0)}).size());
    const bool is_welcome =
        !answer.empty() && static_cast<wire::Kind>(answer[0]) == wire::Kind::done;
    return is_welcome ? answer : answer + hear_all();
  }

 private:
  FileDescriptor socket_;
};

/// A server of our own that answers each connection with `bytes`.
class FakeServer {
 public:
  explicit FakeServer(std::string bytes)
      : thread_([this, bytes](std::stop_token stop) {
          std::vector<FileDescriptor> connections;
          while (!stop.stop_requested()) {
            FileDescriptor socket(accept(listener_.get(), nullptr, nullptr));
            if (socket) {
              send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
              connections.push_back(std::move(socket));
            }
            std::this_thread::sleep_for(1ms);
          }
        }) {}

  int port() const { return port_of(listener_); }

 private:
  FileDescriptor listener_ = listen_on("127.0.0.1", 0);
  std::jthread thread_;
};

class TcpBootstrapTest : public testing::Test {
 protected:
  TcpBootstrapTest() {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_)));
  }
  ~TcpBootstrapTest() override { spdlog::set_default_logger(before_); }

  /// What the server has logged; it must have ended, or have answered what it logged before.
  std::string log() const { return log_.str(); }

 private:
  std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
  std::ostringstream log_;
};

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

TEST_F(TcpBootstrapTest, AFenceThatTimesOutNamesTheMissingToAllThatWaitAndCanBeTriedAgain) {
  RendezvousServer server("127.0.0.1", 0, 3);
  in_threads(3, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, 3));
    if (rank == 1) {
      bootstrap.put("1", "");
      bootstrap.get("timed out 0", patience);
      bootstrap.get("timed out 2", patience);
    } else {
      bootstrap.put(std::to_string(rank), "");
      for (const char* name : {"0", "1", "2"}) bootstrap.get(name, patience);
      // Rank 2 would wait much longer, but shares the end of rank 0's patience.
      const Status status = failure_of([&] { bootstrap.fence(rank == 0 ? 500ms : 20s); });
      EXPECT_EQ(status.code(), Code::timeout);
      EXPECT_THAT(status.message(), AllOf(HasSubstr("a fence waited 0.5 s for rank 1"),
                                          Not(HasSubstr("never joined"))));
      bootstrap.put("timed out " + std::to_string(rank), "");
    }
    bootstrap.fence(patience);
  });
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

TEST_F(TcpBootstrapTest, ASecondWorkerOfARankIsRefusedAndTheFirstGoesOn) {
  RendezvousServer server("127.0.0.1", 0, 2);
  TcpBootstrap one(options_for(server.port(), 1, 2));
  const Status status = failure_of([&] { TcpBootstrap(options_for(server.port(), 1, 2)); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 has joined already, from 127.0.0.1:"));
  EXPECT_THAT(log(), HasSubstr("rank 1 has joined already"));
  one.put("still", "here");
  EXPECT_EQ(one.get("still", patience), "here");
}

TEST_F(TcpBootstrapTest, AnotherWorldSizeIsNamedOnBothSides) {
  RendezvousServer server("127.0.0.1", 0, 2);
  const Status status = failure_of([&] { TcpBootstrap(options_for(server.port(), 1, 3)); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 wants a world of 3 workers, but this one has 2"));
  EXPECT_THAT(log(), HasSubstr("rank 1 wants a world of 3 workers, but this one has 2"));
}

TEST_F(TcpBootstrapTest, RanksOutsideTheWorldAreRefused) {
  RendezvousServer server("127.0.0.1", 0, 2);
  for (const int rank : {-1, 2, 1 << 30}) {
    RawClient client(server.port());
    const std::string expected = "there is no rank " + std::to_string(rank);
    EXPECT_THAT(client.join(wire::Hello{rank, 2, 1}), HasSubstr(expected));
    EXPECT_THAT(log(), HasSubstr(expected));
    EXPECT_EQ(failure_of([&] { TcpBootstrap(options_for(server.port(), rank, 2)); }).code(),
              Code::invalid_argument);
  }
}

TEST_F(TcpBootstrapTest, AnotherWireVersionIsNamedOnBothSides) {
  RendezvousServer server("127.0.0.1", 0, 2);
  RawClient client(server.port());
  std::string hello = wire::encode(wire::Hello{1, 2, 1});
  hello[4] = 9;
  client.say(hello);
  const std::string answer = client.hear_all();
  EXPECT_EQ(wire::decode_preamble(answer), wire::version);
  EXPECT_THAT(answer, HasSubstr("it speaks wire version 9, this rendezvous 2"));
  EXPECT_THAT(log(), HasSubstr("it speaks wire version 9, this rendezvous 2"));

  std::string preamble = wire::encode_preamble();
  preamble[4] = 9;
  FakeServer newer(preamble);
  const Status status = failure_of([&] { TcpBootstrap(options_for(newer.port(), 1, 2)); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("it speaks wire version 9 and rank 1 version 2"));
}

TEST_F(TcpBootstrapTest, WhoDoesNotKnowTheSecretDoesNotJoin) {
  RendezvousServer server("127.0.0.1", 0, 2, -1, "right");
  TcpBootstrap::Options zero = options_for(server.port(), 0, 2);
  zero.secret = "right";
  TcpBootstrap member(zero);
  for (const std::string secret : {"wrong", ""}) {
    TcpBootstrap::Options one = options_for(server.port(), 1, 2);
    one.secret = secret;
    const Status status = failure_of([&] { TcpBootstrap{one}; });
    EXPECT_EQ(status.code(), Code::bootstrap_failed);
    EXPECT_THAT(status.message(), HasSubstr("rank 1 has another secret"));
    EXPECT_THAT(status.message(), HasSubstr("SLIP_SECRET"));
  }
  EXPECT_TRUE(server.failure().ok());
  TcpBootstrap::Options one = options_for(server.port(), 1, 2);
  one.secret = "right";
  TcpBootstrap late(one);
  late.put("name", "value");
  EXPECT_EQ(member.get("name", patience), "value");
}

TEST_F(TcpBootstrapTest, AProofIsWorthlessInAnotherConversation) {
  RendezvousServer server("127.0.0.1", 0, 2, -1, "right");
  const std::string hello = wire::encode(wire::Hello{1, 2, 1});
  const std::string nonce = new_nonce();
  // Of a challenge that was given to somebody else.
  const auto heard = wire::Proof{nonce, wire::worker_proof("right", new_nonce(), nonce, hello)};
  RawClient thief(server.port());
  thief.say(hello + wire::encode(heard));
  EXPECT_THAT(thief.hear_all(), HasSubstr("another secret"));
}

TEST_F(TcpBootstrapTest, ARendezvousThatDoesNotKnowTheSecretIsNotTrusted) {
  FakeServer impostor(wire::encode_preamble() + wire::encode_challenge(new_nonce()) +
                      wire::encode(wire::Welcome{0, std::string(proof_bytes, 'x')}));
  TcpBootstrap::Options one = options_for(impostor.port(), 1, 2);
  one.secret = "right";
  const Status status = failure_of([&] { TcpBootstrap{one}; });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("without knowing its secret"));
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
  in_threads(2, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, 3));
    const Status status = failure_of([&] { bootstrap.all_gather("name", "", 100ms); });
    EXPECT_EQ(status.code(), Code::timeout);
    EXPECT_THAT(status.message(), HasSubstr("rank 2 never joined"));
  });
}

TEST_F(TcpBootstrapTest, WorkersThatMeetInDifferentPlacesAreTold) {
  RendezvousServer server("127.0.0.1", 0, 2);
  in_threads(2, [&](int rank) {
    TcpBootstrap bootstrap(options_for(server.port(), rank, 2));
    if (rank == 0) {
      EXPECT_EQ(failure_of([&] { bootstrap.fence(1s); }).code(), Code::timeout);
    } else {
      std::this_thread::sleep_for(100ms);
      EXPECT_THAT(failure_of([&] { bootstrap.all_gather("name", "", patience); }).message(),
                  HasSubstr("rank 1 came to the gather 'name' while rank 0 waited in another"));
    }
    bootstrap.put(std::to_string(rank), "");
    bootstrap.get(std::to_string(1 - rank), patience);
  });
}

TEST_F(TcpBootstrapTest, AnInvitationLeadsToRankZero) {
  std::promise<std::string> carried;
  std::shared_future<std::string> text = carried.get_future().share();
  in_threads(3, [&](int rank) {
    std::unique_ptr<TcpBootstrap> bootstrap;
    if (rank == 0) {
      bootstrap = open_rendezvous(3, true, patience);
      carried.set_value(to_text(invitation_to(*bootstrap)));
    } else {
      bootstrap = accept_invitation(parse_invitation(text.get()), rank, 3, patience);
    }
    EXPECT_THAT(bootstrap->all_gather("name", std::to_string(rank), patience),
                ElementsAre("0", "1", "2"));
    bootstrap->fence(patience);
  });
}

TEST_F(TcpBootstrapTest, AnInvitationOfRubbishIsRefused) {
  for (const char* text : {"", "host:1", "host secret", "host:0 secret"}) {
    EXPECT_EQ(failure_of([&] { (void)parse_invitation(text); }).code(), Code::bad_data) << text;
  }
}

TEST_F(TcpBootstrapTest, PortsAreTakenFromTheRangeThatIsGiven) {
  const int taken = RendezvousServer("127.0.0.1", 0, 1).port();
  RendezvousServer holder("127.0.0.1", taken, 1);
  const std::string only = fmt::format("{}-{}", taken, taken);
  setenv("SLIP_PORTS", only.c_str(), 1);
  EXPECT_THAT(failure_of([] { open_rendezvous(1, true, 1s); }).message(),
              HasSubstr("choose another port"));
  setenv("SLIP_PORTS", "20-10", 1);
  EXPECT_THAT(failure_of([] { open_rendezvous(1, true, 1s); }).message(),
              HasSubstr("SLIP_PORTS is '20-10'"));
  unsetenv("SLIP_PORTS");
}

TEST_F(TcpBootstrapTest, AnInterfaceThatIsNotThereIsNamedWithThoseThatAre) {
  setenv("SLIP_INTERFACE", "nosuch0", 1);
  const std::string message = failure_of([] { open_rendezvous(2, false, 1s); }).message();
  EXPECT_THAT(message, HasSubstr("SLIP_INTERFACE is 'nosuch0'"));
  EXPECT_THAT(message, HasSubstr("lo"));
  setenv("SLIP_INTERFACE", "lo", 1);
  EXPECT_EQ(open_rendezvous(1, false, 1s)->options().host, "127.0.0.1");
  unsetenv("SLIP_INTERFACE");
}

TEST_F(TcpBootstrapTest, AThousandWorkersJoin) {
  constexpr int size = 1000;
  RendezvousServer server("127.0.0.1", 0, size, -1, "secret");
  std::atomic<int> right = 0;
  in_threads(size, [&](int rank) {
    TcpBootstrap::Options options = options_for(server.port(), rank, size);
    options.secret = "secret";
    TcpBootstrap bootstrap(options);
    const auto all =
        bootstrap.all_gather("hello", std::string(60, 'x') + std::to_string(rank), patience);
    right += all.size() == size &&
             all[static_cast<std::size_t>(rank)].substr(60) == std::to_string(rank);
    bootstrap.fence(patience);
  });
  EXPECT_EQ(right, size);
}

TEST_F(TcpBootstrapTest, StrangersThatSendRubbishAreDroppedWithoutHarmToOthers) {
  RendezvousServer server("127.0.0.1", 0, 2);
  TcpBootstrap zero(options_for(server.port(), 0, 2));
  const std::uint64_t seed =
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  SCOPED_TRACE("seed " + std::to_string(seed));
  Random random(seed);
  RawClient silent(server.port());
  RawClient half(server.port());
  half.say("SLIP");
  for (int i = 0; i < 200; ++i) {
    RawClient client(server.port());
    std::string bytes(20 + random.below(300), '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    client.say(bytes);
    EXPECT_EQ(client.hear_all(), "");
  }
  TcpBootstrap one(options_for(server.port(), 1, 2));
  one.put("name", "value");
  EXPECT_EQ(zero.get("name", patience), "value");
  EXPECT_THAT(log(), HasSubstr("it does not speak this protocol"));
  EXPECT_TRUE(server.failure().ok());
}

TEST_F(TcpBootstrapTest, AMemberThatSendsRubbishIsLostByItsRank) {
  const std::string fence = wire::encode(wire::Request{wire::Kind::fence, patience});
  std::string endless = fence;
  endless.replace(1, 4, "\xff\xff\xff\x7f");
  std::string negative = fence;
  negative.back() = '\x80';
  const std::string rubbish[] = {
      endless,                                                                  // length
      negative,                                                                 // time-out
      fence + fence,                                                            // two at once
      fence.substr(0, 1) + std::string("\x02\0\0\0ab", 6),                      // too short
      wire::encode(wire::Request{wire::Kind::get, patience, ""}),               // no name
      wire::encode(wire::Request{wire::Kind::put, {}, std::string(257, 'x')}),  // long name
      std::string("\x63\0\0\0\0", 5),                                           // no such request
  };
  for (const std::string& bytes : rubbish) {
    SCOPED_TRACE(testing::PrintToString(bytes));
    RendezvousServer server("127.0.0.1", 0, 2);
    TcpBootstrap zero(options_for(server.port(), 0, 2));
    RawClient one(server.port());
    one.join(wire::Hello{1, 2, 1}, "", bytes);
    EXPECT_EQ(failure_of([&] { zero.get("never", patience); }).peer(), 1);
    EXPECT_EQ(server.failure().peer(), 1);
    one.hear_all();
  }
}

TEST_F(TcpBootstrapTest, RandomAnswersAreAnErrorAndNeverMore) {
  const std::uint64_t seed =
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  SCOPED_TRACE("seed " + std::to_string(seed));
  Random random(seed);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random.below(40), '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    if (!bytes.empty()) bytes[0] = static_cast<char>(random.below(21));
    for (std::size_t b = 3; b < 5 && b < bytes.size(); ++b) bytes[b] = 0;
    if (bytes.size() > 2) bytes[2] = 0;
    const Status status = failure_of([&] {
      if (const auto frame = wire::first_frame(bytes)) {
        EXPECT_LE(frame->bytes, bytes.size());
        if (frame->kind < wire::Kind::done) wire::decode_request(*frame);
        if (frame->kind >= wire::Kind::done) wire::decode_answer(*frame);
        wire::decode_values(frame->payload);
      }
    });
    EXPECT_TRUE(status.ok() || status.code() == Code::bad_data) << status.message();
  }
}

TEST_F(TcpBootstrapTest, AStrangerOnThePortIsNoRendezvous) {
  FakeServer web("HTTP/1.1 400 Bad Request\r\n\r\n");
  const Status status = failure_of([&] { TcpBootstrap(options_for(web.port(), 1, 2)); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("what answers there is no rendezvous"));
}

TEST_F(TcpBootstrapTest, JoiningHasADeadline) {
  const int closed = RendezvousServer("127.0.0.1", 0, 1).port();
  const Status nobody = failure_of([&] { TcpBootstrap(options_for(closed, 1, 2, 300ms)); });
  EXPECT_EQ(nobody.code(), Code::timeout);
  EXPECT_THAT(nobody.message(),
              HasSubstr("rendezvous 127.0.0.1:" + std::to_string(closed) +
                        ": nobody answered within 0.3 s (Connection refused); start rank 0 "
                        "there, or check host, port and firewall"));

  FakeServer silent("");
  const Status silence = failure_of([&] { TcpBootstrap(options_for(silent.port(), 1, 2, 300ms)); });
  EXPECT_EQ(silence.code(), Code::timeout);
  EXPECT_THAT(silence.message(), HasSubstr("accepted but not answered"));
}

TEST_F(TcpBootstrapTest, WorkersMayComeBeforeTheServer) {
  const int port = RendezvousServer("127.0.0.1", 0, 1).port();
  in_threads(3, [&](int rank) {
    auto options = options_for(port, rank, 3);
    options.serve = rank == 0;
    if (rank == 0) std::this_thread::sleep_for(100ms);
    TcpBootstrap bootstrap(options);
    bootstrap.fence(patience);
    EXPECT_EQ(bootstrap.describe(), "tcp 127.0.0.1:" + std::to_string(port));
  });
}

TEST_F(TcpBootstrapTest, TheWorkerThatServesStaysUntilTheOthersHaveLeft) {
  const int port = RendezvousServer("127.0.0.1", 0, 1).port();
  in_threads(2, [&](int rank) {
    auto options = options_for(port, rank, 2);
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

TEST_F(TcpBootstrapTest, APortThatIsTakenIsNamed) {
  RendezvousServer first("127.0.0.1", 0, 1);
  const Status status = failure_of([&] { RendezvousServer("127.0.0.1", first.port(), 1); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), AllOf(HasSubstr(std::to_string(first.port())),
                                      HasSubstr("Address already in use; choose another port")));
  // 192.0.2.0/24 is nobody's (RFC 5737).
  EXPECT_THAT(failure_of([] { RendezvousServer("192.0.2.1", 0, 1); }).message(),
              HasSubstr("rank 0 must run on the host that has this address"));
}

TEST_F(TcpBootstrapTest, NamesAndIpv6AddressesOfHostsWork) {
  std::vector<std::string> hosts = {"localhost", "127.0.0.1"};
  FileDescriptor ipv6(socket(AF_INET6, SOCK_STREAM, 0));
  if (ipv6 && failure_of([] { listen_on("::1", 0); }).ok()) hosts.push_back("::1");
  for (const std::string& host : hosts) {
    TcpBootstrap bootstrap({.host = host, .port = 0, .size = 1, .serve = true});
    bootstrap.put("name", "value");
    EXPECT_EQ(bootstrap.get("name", patience), "value");
    bootstrap.fence(patience);
  }
  const Status unknown = failure_of([] {
    TcpBootstrap({.host = "no-such-host.invalid", .port = 4000, .size = 1, .timeout = 200ms});
  });
  EXPECT_THAT(unknown.message(), HasSubstr("rendezvous no-such-host.invalid:4000: "));
}

TEST(Endpoint, IsHostAndPort) {
  EXPECT_EQ(parse_endpoint("10.0.0.1:4000").host, "10.0.0.1");
  EXPECT_EQ(parse_endpoint("10.0.0.1:4000").port, 4000);
  EXPECT_EQ(parse_endpoint("node7:1").host, "node7");
  EXPECT_EQ(parse_endpoint("[::1]:65535").host, "::1");
  for (const char* text : {"", ":", "host", "host:", ":4000", "host:0", "host:65536", "host:4x",
                           "::1:4000", "[]:4000", "host:-1", "host: 1"}) {
    const Status status = failure_of([&] { parse_endpoint(text); });
    EXPECT_EQ(status.code(), Code::invalid_argument) << text;
    EXPECT_THAT(status.message(), HasSubstr("is not HOST:PORT"));
  }
}

class EnvironmentTest : public testing::Test {
 protected:
  ~EnvironmentTest() override {
    for (const char* name : {"SLIP_RENDEZVOUS", "SLIP_RENDEZVOUS_SERVER", "SLIP_RANK", "SLIP_SIZE"})
      unsetenv(name);
  }
};

TEST_F(EnvironmentTest, SaysWhereToJoinAndWhoServes) {
  EXPECT_FALSE(tcp_options_from_environment());
  setenv("SLIP_RENDEZVOUS", "[::1]:4000", 1);
  setenv("SLIP_RANK", "0", 1);
  setenv("SLIP_SIZE", "4", 1);
  const auto options = tcp_options_from_environment();
  ASSERT_TRUE(options);
  EXPECT_EQ(options->host, "::1");
  EXPECT_EQ(options->port, 4000);
  EXPECT_EQ(options->rank, 0);
  EXPECT_EQ(options->size, 4);
  EXPECT_TRUE(options->serve);
  setenv("SLIP_RENDEZVOUS_SERVER", "launcher", 1);
  EXPECT_FALSE(tcp_options_from_environment()->serve);
  setenv("SLIP_RENDEZVOUS_SERVER", "rank0", 1);
  setenv("SLIP_RANK", "3", 1);
  EXPECT_FALSE(tcp_options_from_environment()->serve);
}

TEST_F(EnvironmentTest, AWrongVariableIsNamed) {
  const auto message = [] {
    return failure_of([] { (void)tcp_options_from_environment(); }).message();
  };
  setenv("SLIP_RENDEZVOUS", "nowhere", 1);
  EXPECT_THAT(message(), HasSubstr("SLIP_RENDEZVOUS: 'nowhere' is not HOST:PORT"));
  setenv("SLIP_RENDEZVOUS", "host:1", 1);
  EXPECT_THAT(message(), HasSubstr("SLIP_SIZE is not"));
  setenv("SLIP_SIZE", "two", 1);
  EXPECT_THAT(message(), HasSubstr("SLIP_SIZE is 'two'; allowed are 1 to"));
  setenv("SLIP_SIZE", "2", 1);
  setenv("SLIP_RANK", "2", 1);
  EXPECT_THAT(message(), HasSubstr("SLIP_RANK is '2'; allowed are 0 to 1"));
  setenv("SLIP_RANK", "1", 1);
  setenv("SLIP_RENDEZVOUS_SERVER", "me", 1);
  EXPECT_THAT(message(), HasSubstr("SLIP_RENDEZVOUS_SERVER is 'me'"));
}

}  // namespace
}  // namespace slip
