// Rubbish at a rendezvous.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "raw_peers.h"
#include "slipstream/base/random.h"
#include "slipstream/runtime/rendezvous_server.h"
#include "slipstream/runtime/rendezvous_wire_internal.h"
#include "slipstream/runtime/tcp_bootstrap.h"
#include "tcp_support.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
namespace wire = rendezvous_wire;

class TcpStrangersTest : public TcpTest {};

TEST_F(TcpStrangersTest, StrangersThatSendRubbishAreDroppedWithoutHarmToOthers) {
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

TEST_F(TcpStrangersTest, AMemberThatSendsRubbishIsLostByItsRank) {
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

TEST(Log, GoesToStderrAndLeavesTheProgramsLoggerAlone) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const auto of_the_program = spdlog::default_logger();
  {
    RendezvousServer server("127.0.0.1", 0, 2);
    RawClient client(server.port());
    client.say("no words of ours, and enough of them");
    EXPECT_EQ(client.hear_all(), "");
  }
  EXPECT_EQ(spdlog::default_logger(), of_the_program);
  EXPECT_EQ(spdlog::get("slipstream"), nullptr);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::AllOf(HasSubstr("[slipstream]"), HasSubstr("does not speak this protocol")));
}

}  // namespace
}  // namespace slip
