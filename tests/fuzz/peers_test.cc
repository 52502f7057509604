// Whatever bytes come from a peer, a worker reads them or says what is wrong.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mutation.h"
#include "slipstream/base/error.h"
#include "slipstream/runtime/invitation.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/runtime/machine.h"
#include "slipstream/runtime/remote_ring.h"
#include "slipstream/runtime/rendezvous_book_internal.h"
#include "slipstream/runtime/rendezvous_wire_internal.h"
#include "slipstream/runtime/secret_internal.h"
#include "slipstream/runtime/topology.h"
#include "slipstream/runtime/world_internal.h"
#if SLIP_HAVE_UCX
#include "slipstream/transport/ucx/message_internal.h"
#endif
#if SLIP_HAVE_VERBS
#include "slipstream/transport/verbs/wire_internal.h"
#endif

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::read_mutations;
namespace wire = rendezvous_wire;
using wire::Kind;

std::vector<std::string> requests() {
  return {wire::encode(wire::Request{Kind::put, {}, "name", "value"}),
          wire::encode(wire::Request{Kind::get, 5s, "name"}),
          wire::encode(wire::Request{Kind::gather, 5s, "name", "value"}),
          wire::encode(wire::Request{Kind::fence, 5s}),
          wire::encode(wire::Request{Kind::failed, {}, {}, "the reason"}),
          wire::encode(wire::Request{Kind::goodbye})};
}

TEST(FuzzPeers, HellosOfWorkers) {
  read_mutations({wire::encode(wire::Hello{1, 4, 1})}, [](const std::string& bytes) {
    if (bytes.size() < wire::preamble_bytes) return;
    if (wire::decode_preamble(bytes) != wire::version || bytes.size() < wire::hello_bytes) return;
    RendezvousBook book(4, [](int, std::string) {});
    (void)book.join(wire::decode_hello(bytes.substr(wire::preamble_bytes)), "an address");
  });
}

TEST(FuzzPeers, RequestsToTheRendezvous) {
  const std::vector<std::string> good = requests();
  read_mutations(good, [&](const std::string& bytes) {
    RendezvousBook book(2, [](int, std::string) {});
    ASSERT_TRUE(book.join({0, 2, 1}, "an address").ok());
    ASSERT_TRUE(book.join({1, 2, 1}, "an address").ok());
    std::string_view rest = bytes;
    while (const auto frame = wire::first_frame(rest)) {
      ASSERT_LE(frame->bytes, rest.size());
      rest.remove_prefix(frame->bytes);
      book.request(0, wire::decode_request(*frame), Time(0));
    }
  });
}

TEST(FuzzPeers, AnswersOfTheRendezvous) {
  const std::string nonce(nonce_bytes, 'n');
  const std::string proof(proof_bytes, 'p');
  read_mutations(
      {wire::encode_challenge(nonce), wire::encode(wire::Proof{nonce, proof}),
       wire::encode(wire::Welcome{0, proof}),
       wire::encode(wire::Answer{Kind::refused, {}, Status(Code::timeout, "too late")}),
       wire::encode(wire::Answer{Kind::lost, {}, Status(Code::peer_lost, "gone", 1)}),
       wire::encode(wire::Answer{Kind::done, wire::encode_values({"one", "", "three"})})},
      [](const std::string& bytes) {
        const auto frame = wire::first_frame(bytes);
        if (!frame) return;
        ASSERT_LE(frame->bytes, bytes.size());
        if (frame->kind == Kind::challenge) return (void)wire::decode_challenge(*frame);
        if (frame->kind == Kind::proof) return (void)wire::decode_proof(*frame);
        const wire::Answer answer = wire::decode_answer(*frame);
        if (answer.value.size() == 4 + proof_bytes)
          (void)wire::decode_welcome(answer.value);
        else if (answer.kind == Kind::done)
          (void)wire::decode_values(answer.value);
      });
}

TEST(FuzzPeers, Invitations) {
  read_mutations({to_text({{"10.0.0.1", 4000}, "secret"}), to_text({{"::1", 4000}, "secret"})},
                 [](const std::string& text) {
                   const Endpoint where = parse_invitation(text).where;
                   EXPECT_FALSE(where.host.empty());
                   EXPECT_GE(where.port, 1);
                   EXPECT_LE(where.port, 65535);
                 });
}

TEST(FuzzPeers, ListsOfProcessors) {
  read_mutations({"0-3,8,10-11", ""}, [](const std::string& text) {
    if (const auto cpus = parse_cpus(text)) {
      for (const int cpu : *cpus) EXPECT_GE(cpu, 0);
    }
  });
}

/// One of two workers of a host: rank 0 tells of its machine, and rank 1 is told.
class ToldBootstrap final : public Bootstrap {
 public:
  explicit ToldBootstrap(int rank) : rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return 2; }
  std::string describe() const override { return "a test"; }
  void put(std::string_view, std::string_view value) override { told = value; }
  std::string get(std::string_view, Duration) override { return told; }
  void fence(Duration) override {}

  std::string told;

 private:
  const int rank_;
};

TEST(FuzzPeers, MachinesOfHosts) {
  const std::vector<Topology::Member> members = {{0, {0}}, {0, {0}}};
  ToldBootstrap teller(0);
  gather_topology(teller, members, 1s);
  read_mutations({teller.told}, [&](const std::string& text) {
    ToldBootstrap reader(1);
    reader.told = text;
    const Topology topology = gather_topology(reader, members, 1s);
    for (const Topology::Leader& leader : topology.leaders(0)) EXPECT_LT(leader.rank, 2);
  });
}

#if SLIP_HAVE_UCX
TEST(FuzzPeers, RegionKeysOfUcx) {
  ucx::RegionKey key;
  key.address = 1 << 20;
  key.bytes = 4096;
  key.rkey = "a key";
  key.doorbell_rkey = "another";
  key.address_of_worker = "an address";
  read_mutations({ucx::pack(key)}, [](const std::string& text) {
    const ucx::RegionKey read = ucx::unpack(text, 1);
    EXPECT_GT(read.bytes, 0u);
    EXPECT_GE(read.address + read.bytes, read.address);
  });
}
#endif

#if SLIP_HAVE_VERBS
TEST(FuzzPeers, RegionKeysOfVerbs) {
  verbs::RegionKey key;
  key.address = 1 << 20;
  key.bytes = 4096;
  read_mutations({verbs::pack(key)}, [](const std::string& text) {
    const verbs::RegionKey read = verbs::unpack(text, 1);
    EXPECT_GT(read.bytes, 0u);
    EXPECT_GE(read.address + read.bytes, read.address);
  });
}
#endif

/// Whatever a peer has written into a ring, its messages lie in it, and there is an end to them.
TEST(FuzzPeers, RecordsOfARing) {
  constexpr std::size_t capacity = 256;
  launch(1, [&](World& world) {
    int rings = 0;
    const auto make = [&](const std::function<void(RingReceiver&, std::byte*)>& use) {
      const std::string name = fmt::format("{}", rings++);
      RingReceiver receiver(world, 0, name, capacity);
      const RingSender sender(world, receiver);
      use(receiver, world.attach(0, fmt::format("ring/{}/0", name)).memory.get());
    };
    std::string good(capacity, '\0');
    make([&](RingReceiver& receiver, std::byte* memory) {
      RingSender sender(world, receiver);
      for (const std::string text : {"one", "", "a message of some length", "four"}) {
        sender.send(std::as_bytes(std::span(text)), world.deadline()).throw_if_failed();
      }
      std::memcpy(good.data(), memory, capacity);
    });
    read_mutations({good}, [&](const std::string& bytes) {
      make([&](RingReceiver& receiver, std::byte* memory) {
        std::memcpy(memory, bytes.data(), std::min(bytes.size(), capacity));
        int count = 0;
        const Status status = receiver.poll(
            [&](std::span<const std::byte> message) {
              ASSERT_GE(message.data(), memory);
              ASSERT_LE(message.data() + message.size(), memory + capacity);
            },
            1000, &count);
        EXPECT_LE(count, static_cast<int>(capacity / sizeof(Word)));
        EXPECT_TRUE(status.ok() || status.code() == Code::bad_data) << status.message();
      });
    });
  });
}

}  // namespace
}  // namespace slip
