// Who may join a rendezvous, by when, and what those are told who may not.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "raw_peers.h"
#include "reserved_port.h"
#include "slipstream/runtime/rendezvous_server.h"
#include "slipstream/runtime/rendezvous_wire_internal.h"
#include "slipstream/runtime/secret_internal.h"
#include "slipstream/runtime/socket_internal.h"
#include "slipstream/runtime/tcp_bootstrap.h"
#include "tcp_support.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
namespace wire = rendezvous_wire;

class TcpJoiningTest : public TcpTest {};

TEST_F(TcpJoiningTest, ASecondWorkerOfARankIsRefusedAndTheFirstGoesOn) {
  RendezvousServer server("127.0.0.1", 0, 2);
  TcpBootstrap one(options_for(server.port(), 1, 2));
  const Status status = failure_of([&] { TcpBootstrap(options_for(server.port(), 1, 2)); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 has joined already, from 127.0.0.1:"));
  EXPECT_THAT(log(), HasSubstr("rank 1 has joined already"));
  one.put("still", "here");
  EXPECT_EQ(one.get("still", patience), "here");
}

TEST_F(TcpJoiningTest, AnotherWorldSizeIsNamedOnBothSides) {
  RendezvousServer server("127.0.0.1", 0, 2);
  const Status status = failure_of([&] { TcpBootstrap(options_for(server.port(), 1, 3)); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 wants a world of 3 workers, but this one has 2"));
  EXPECT_THAT(log(), HasSubstr("rank 1 wants a world of 3 workers, but this one has 2"));
}

TEST_F(TcpJoiningTest, RanksOutsideTheWorldAreRefused) {
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

TEST_F(TcpJoiningTest, AnotherWireVersionIsNamedOnBothSides) {
  RendezvousServer server("127.0.0.1", 0, 2);
  RawClient client(server.port());
  std::string hello = wire::encode(wire::Hello{1, 2, 1});
  hello[4] = 9;
  client.say(hello);
  const std::string answer = client.hear_all();
  EXPECT_EQ(wire::decode_preamble(answer), wire::version);
  EXPECT_THAT(answer, HasSubstr("rank 1 speaks wire version 9, this rendezvous 2"));
  EXPECT_THAT(log(), HasSubstr("rank 1 speaks wire version 9, this rendezvous 2"));

  std::string preamble = wire::encode_preamble();
  preamble[4] = 9;
  FakeServer newer(preamble);
  const Status status = failure_of([&] { TcpBootstrap(options_for(newer.port(), 1, 2)); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("it speaks wire version 9 and rank 1 version 2"));
}

TEST_F(TcpJoiningTest, WhoDoesNotKnowTheSecretDoesNotJoin) {
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

TEST_F(TcpJoiningTest, WhoWaitsInVainIsToldWhoWasRefused) {
  RendezvousServer server("127.0.0.1", 0, 2, -1, "right");
  TcpBootstrap::Options zero = options_for(server.port(), 0, 2);
  zero.secret = "right";
  TcpBootstrap member(zero);
  EXPECT_FALSE(failure_of([&] { TcpBootstrap(options_for(server.port(), 1, 2)); }).ok());
  EXPECT_THAT(failure_of([&] { member.all_gather("hello", "", 300ms); }).message(),
              HasSubstr("rank 1 never joined; a worker was refused: rank 1 has another secret"));
}

TEST_F(TcpJoiningTest, AProofIsWorthlessInAnotherConversation) {
  RendezvousServer server("127.0.0.1", 0, 2, -1, "right");
  const std::string hello = wire::encode(wire::Hello{1, 2, 1});
  const std::string nonce = new_nonce();
  // Of a challenge that was given to somebody else.
  const auto heard = wire::Proof{nonce, wire::worker_proof("right", new_nonce(), nonce, hello)};
  RawClient thief(server.port());
  thief.say(hello + wire::encode(heard));
  EXPECT_THAT(thief.hear_all(), HasSubstr("another secret"));
}

TEST_F(TcpJoiningTest, ARendezvousThatDoesNotKnowTheSecretIsNotTrusted) {
  FakeServer impostor(wire::encode_preamble() + wire::encode_challenge(new_nonce()) +
                      wire::encode(wire::Welcome{0, std::string(proof_bytes, 'x')}));
  TcpBootstrap::Options one = options_for(impostor.port(), 1, 2);
  one.secret = "right";
  const Status status = failure_of([&] { TcpBootstrap{one}; });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("without knowing its secret"));
}

TEST_F(TcpJoiningTest, AThousandWorkersJoin) {
  constexpr int size = 1000;
  constexpr Duration all_may_take = 120s;  // sanitizers on a busy machine
  rlimit descriptors;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &descriptors), 0);
  if (descriptors.rlim_max < 2 * size + 100) {
    GTEST_SKIP() << "a process may have " << descriptors.rlim_max << " descriptors (ulimit -Hn)";
  }
  descriptors.rlim_cur = descriptors.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &descriptors), 0);
  RendezvousServer server("127.0.0.1", 0, size, -1, "secret");
  std::atomic<int> right = 0;
  in_threads(size, [&](int rank) {
    TcpBootstrap::Options options = options_for(server.port(), rank, size, all_may_take);
    options.secret = "secret";
    TcpBootstrap bootstrap(options);
    const auto all =
        bootstrap.all_gather("hello", std::string(60, 'x') + std::to_string(rank), all_may_take);
    right += all.size() == size &&
             all[static_cast<std::size_t>(rank)].substr(60) == std::to_string(rank);
    bootstrap.fence(all_may_take);
  });
  EXPECT_EQ(right, size);
}

TEST_F(TcpJoiningTest, AStrangerOnThePortIsNoRendezvous) {
  FakeServer web("HTTP/1.1 400 Bad Request\r\n\r\n");
  const Status status = failure_of([&] { TcpBootstrap(options_for(web.port(), 1, 2)); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), HasSubstr("what answers there is no rendezvous"));
}

TEST_F(TcpJoiningTest, JoiningHasADeadline) {
  const ReservedPort closed;
  const Status nobody =
      failure_of([&] { TcpBootstrap(options_for(closed.number(), 1, 2, 300ms)); });
  EXPECT_EQ(nobody.code(), Code::timeout);
  EXPECT_THAT(nobody.message(),
              HasSubstr("rendezvous 127.0.0.1:" + std::to_string(closed.number()) +
                        ": nobody answered within 0.3 s (Connection refused); start rank 0 "
                        "there, or check host, port and firewall"));

  FakeServer silent("");
  const Status silence = failure_of([&] { TcpBootstrap(options_for(silent.port(), 1, 2, 300ms)); });
  EXPECT_EQ(silence.code(), Code::timeout);
  EXPECT_THAT(silence.message(), HasSubstr("accepted but not answered"));
}

TEST_F(TcpJoiningTest, WhoWaitsForARendezvousSaysSoOnceAndBeforeItGivesUp) {
  const ReservedPort closed;
  EXPECT_FALSE(failure_of([&] { TcpBootstrap(options_for(closed.number(), 1, 2, 2s)); }).ok());
  EXPECT_EQ(log(), fmt::format("rendezvous 127.0.0.1:{}: rank 1 still waits for an answer "
                               "(Connection refused), 2 s in all\n",
                               closed.number()));
}

TEST_F(TcpJoiningTest, WhoWaitsForASilentRendezvousSaysSo) {
  std::string expected;
  for (const std::string& said : {std::string(), wire::encode_preamble()}) {
    FakeServer silent(said);
    EXPECT_FALSE(failure_of([&] { TcpBootstrap(options_for(silent.port(), 1, 2, 1s)); }).ok());
    expected += fmt::format(
        "rendezvous 127.0.0.1:{}: rank 1 still waits for an answer (a connection "
        "was accepted but not answered), 1 s in all\n",
        silent.port());
    EXPECT_EQ(log(), expected);
  }
}

TEST_F(TcpJoiningTest, WhoHasNotJoinedIsNamedOnceAndBeforeTheDeadline) {
  RendezvousServer server("127.0.0.1", 0, 4);
  TcpBootstrap zero(options_for(server.port(), 0, 4));
  EXPECT_THAT(failure_of([&] { zero.all_gather("hello", "", 1s); }).message(),
              HasSubstr("ranks 1, 2, 3 never joined"));
  EXPECT_EQ(log(), fmt::format("rendezvous 127.0.0.1:{}: still waits for ranks 1, 2, 3 to join\n",
                               server.port()));
}

TEST_F(TcpJoiningTest, OfTwoJobsAtOneRendezvousTheSecondIsToldAndTheFirstGoesOn) {
  for (const bool have_secrets : {true, false}) {
    RendezvousServer server("127.0.0.1", 0, 2, 0, have_secrets ? "of the first" : "");
    const auto join = [&](int rank, const std::string& secret, bool serve = false) {
      TcpBootstrap::Options options = options_for(server.port(), rank, 2);
      if (have_secrets) options.secret = secret;
      options.serve = serve;
      return std::make_unique<TcpBootstrap>(options);
    };
    const auto zero = join(0, "of the first");
    const auto one = join(1, "of the first");
    const Status late_zero = failure_of([&] { join(0, "of the second", true); });
    EXPECT_EQ(late_zero.peer(), 0);
    EXPECT_EQ(late_zero.message(),
              fmt::format("rank 0: rendezvous 127.0.0.1:{}: cannot listen there: Address already "
                          "in use; choose another port",
                          server.port()));
    EXPECT_THAT(
        failure_of([&] { join(1, "of the second"); }).message(),
        HasSubstr(have_secrets ? "rank 1 has another secret" : "rank 1 has joined already"));
    zero->put("name", "value");
    EXPECT_EQ(one->get("name", patience), "value");
  }
}

TEST_F(TcpJoiningTest, WorkersMayComeBeforeTheServer) {
  const ReservedPort port;
  in_threads(3, [&](int rank) {
    auto options = options_for(port.number(), rank, 3);
    options.serve = rank == 0;
    if (rank == 0) std::this_thread::sleep_for(100ms);
    TcpBootstrap bootstrap(options);
    bootstrap.fence(patience);
    EXPECT_EQ(bootstrap.describe(), "tcp 127.0.0.1:" + std::to_string(port.number()));
  });
}

TEST_F(TcpJoiningTest, APortThatIsTakenIsNamed) {
  RendezvousServer first("127.0.0.1", 0, 1);
  const Status status = failure_of([&] { RendezvousServer("127.0.0.1", first.port(), 1); });
  EXPECT_EQ(status.code(), Code::bootstrap_failed);
  EXPECT_THAT(status.message(), AllOf(HasSubstr(std::to_string(first.port())),
                                      HasSubstr("Address already in use; choose another port")));
  // 192.0.2.0/24 is nobody's (RFC 5737).
  EXPECT_THAT(failure_of([] { RendezvousServer("192.0.2.1", 0, 1); }).message(),
              HasSubstr("rank 0 must run on the host that has this address"));
}

TEST_F(TcpJoiningTest, NamesAndIpv6AddressesOfHostsWork) {
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

}  // namespace
}  // namespace slip
