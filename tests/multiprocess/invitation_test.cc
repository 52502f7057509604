// How workers learn where to meet.

#include "slipstream/runtime/invitation.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>

#include "slipstream/runtime/rendezvous_server.h"
#include "slipstream/runtime/tcp_bootstrap.h"
#include "tcp_support.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

class InvitationTest : public TcpTest {};

TEST_F(InvitationTest, AnInvitationLeadsToRankZero) {
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

TEST_F(InvitationTest, AnInvitationOfRubbishIsRefused) {
  for (const char* text : {"", "host:1", "host secret", "host:0 secret"}) {
    EXPECT_EQ(failure_of([&] { (void)parse_invitation(text); }).code(), Code::bad_data) << text;
  }
}

TEST_F(InvitationTest, PortsAreTakenFromTheRangeThatIsGiven) {
  RendezvousServer holder("127.0.0.1", 0, 1);
  const std::string only = fmt::format("{}-{}", holder.port(), holder.port());
  setenv("SLIP_PORTS", only.c_str(), 1);
  EXPECT_THAT(failure_of([] { open_rendezvous(1, true, 1s); }).message(),
              HasSubstr("choose another port"));
  setenv("SLIP_PORTS", "20-10", 1);
  EXPECT_THAT(failure_of([] { open_rendezvous(1, true, 1s); }).message(),
              HasSubstr("SLIP_PORTS is '20-10'"));
  unsetenv("SLIP_PORTS");
}

TEST_F(InvitationTest, AnInterfaceThatIsNotThereIsNamedWithThoseThatAre) {
  setenv("SLIP_INTERFACE", "nosuch0", 1);
  const std::string message = failure_of([] { open_rendezvous(2, false, 1s); }).message();
  EXPECT_THAT(message, HasSubstr("SLIP_INTERFACE is 'nosuch0'"));
  EXPECT_THAT(message, HasSubstr("lo"));
  setenv("SLIP_INTERFACE", "lo", 1);
  EXPECT_EQ(open_rendezvous(1, false, patience)->options().host, "127.0.0.1");
  unsetenv("SLIP_INTERFACE");
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
