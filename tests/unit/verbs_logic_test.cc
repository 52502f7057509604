// What verbs decides without a device: which port and GID, how large windows are, what a key may
// be.

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/transport/verbs/port_internal.h"
#include "slipstream/transport/verbs/window_internal.h"
#include "slipstream/transport/verbs/wire_internal.h"

namespace slip::verbs {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// ---- Ports.

GidBytes ipv4(std::uint8_t last) {
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, last};
}
GidBytes link_local(std::uint8_t last) {
  return {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last};
}

Port roce(const std::string& device) {
  Port port;
  port.device = device;
  port.is_active = true;
  port.state = "active";
  port.link = Link::ethernet;
  port.mtu = 4096;
  port.gids = {{0, Gid::Kind::roce_v1, link_local(1)},
               {1, Gid::Kind::roce_v2, link_local(1)},
               {2, Gid::Kind::roce_v1, ipv4(1)},
               {3, Gid::Kind::roce_v2, ipv4(1)}};
  port.pkeys = {0xffff};
  return port;
}

Port infiniband(const std::string& device) {
  Port port = roce(device);
  port.link = Link::infiniband;
  port.lid = 5;
  port.gids = {{0, Gid::Kind::infiniband, link_local(1)},
               {1, Gid::Kind::infiniband, link_local(2)}};
  port.pkeys = {0x7fff, 0x8001};
  return port;
}

std::string refusal(const std::vector<Port>& ports, const VerbsSettings& settings) {
  try {
    (void)choose(ports, settings, nullptr);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_supported);
    return error.what();
  }
  return "";
}

TEST(VerbsPorts, roce_takes_the_second_version_of_an_ipv4_address) {
  EXPECT_EQ(choose({roce("a")}, {}, nullptr).gid.index, 3);
  Port without = roce("a");
  without.gids.pop_back();
  EXPECT_EQ(choose({without}, {}, nullptr).gid.index, 1);
}

TEST(VerbsPorts, what_is_asked_for_is_taken) {
  const Choice choice = choose({infiniband("a"), infiniband("b")},
                               {.device = "b", .gid = 1, .pkey = 0x0001, .mtu = 1024}, nullptr);
  EXPECT_EQ(choice.device, "b");
  EXPECT_EQ(choice.gid.index, 1);
  EXPECT_EQ(choice.pkey_index, 1);  // 0x8001 is a full member of the same partition
  EXPECT_EQ(choice.mtu, 1024);
}

TEST(VerbsPorts, of_several_devices_the_nearest_with_an_active_port_is_taken) {
  std::vector<Port> ports = {roce("a"), roce("b"), roce("c")};
  EXPECT_EQ(choose(ports, {}, [] { return "b"; }).device, "b");
  EXPECT_EQ(choose(ports, {}, [] { return "eth0"; }).device, "a");
  EXPECT_EQ(choose(ports, {}, nullptr).device, "a");
  ports[1].is_active = false;
  EXPECT_EQ(choose(ports, {}, [] { return "b"; }).device, "a");
  bool was_asked = false;
  (void)choose({roce("a")}, {}, [&] {
    was_asked = true;
    return "a";
  });
  EXPECT_FALSE(was_asked) << "finding out takes long";
}

TEST(VerbsPorts, what_does_not_fit_is_named_with_what_there_is) {
  EXPECT_THAT(refusal({}, {}), HasSubstr("no RDMA device"));
  EXPECT_THAT(refusal({roce("a"), roce("b")}, {.device = "c"}),
              AllOf(HasSubstr("'c'"), HasSubstr("a, b")));
  EXPECT_THAT(refusal({roce("a")}, {.port = 2}), AllOf(HasSubstr("is 2"), HasSubstr("a port 1")));
  EXPECT_THAT(refusal({roce("a")}, {.gid = 9}), AllOf(HasSubstr("is 9"), HasSubstr("10.9.0.1")));
  EXPECT_THAT(refusal({infiniband("a")}, {.pkey = 0x8002}),
              AllOf(HasSubstr("0x8002"), HasSubstr("0x8001")));
  Port port = roce("a");
  port.mtu = 1024;
  EXPECT_THAT(refusal({port}, {.mtu = 4096}), AllOf(HasSubstr("4096"), HasSubstr("1024")));
  port.gids.clear();
  EXPECT_THAT(refusal({port}, {}), HasSubstr("no GID"));
  port.is_active = false;
  port.state = "down";
  EXPECT_THAT(refusal({port}, {}), AllOf(HasSubstr("a port 1 is down"), HasSubstr("set")));
}

TEST(VerbsPorts, packets_are_routed_on_ethernet_between_subnets_and_when_asked_to) {
  const Choice here = choose({infiniband("a")}, {}, nullptr);
  Place there{Link::infiniband, 7, link_local(9)};
  EXPECT_FALSE(needs_route(here, there));
  EXPECT_TRUE(needs_route(choose({infiniband("a")}, {.gid = 0}, nullptr), there));
  EXPECT_TRUE(needs_route(choose({roce("a")}, {}, nullptr), there));
  there.gid[7] = 1;
  EXPECT_TRUE(needs_route(here, there));
}

TEST(VerbsSettings, environment_variables_are_checked) {
  setenv("SLIP_VERBS_PKEY", "0x8001", 1);
  setenv("SLIP_VERBS_WORDS", "polled", 1);
  const VerbsSettings settings = verbs_settings_from_environment();
  EXPECT_EQ(settings.pkey, 0x8001u);
  EXPECT_EQ(settings.words, VerbsSettings::Words::polled);
  unsetenv("SLIP_VERBS_PKEY");
  unsetenv("SLIP_VERBS_WORDS");
  for (const auto& [name, value] : {std::pair{"SLIP_VERBS_PORT", "0"},
                                    {"SLIP_VERBS_GID", "x"},
                                    {"SLIP_VERBS_MTU", "1500"},
                                    {"SLIP_VERBS_PKEY", "0x"},
                                    {"SLIP_VERBS_WORDS", "fast"}}) {
    setenv(name, value, 1);
    try {
      (void)verbs_settings_from_environment();
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr(name), HasSubstr("allowed are")));
    }
    unsetenv(name);
  }
}

// ---- Windows.

TEST(VerbsWindows, immediate_data_says_what_it_said) {
  for (const Notice notice :
       {Notice::cell, Notice::landed_worker, Notice::landed_progress, Notice::credit}) {
    for (const std::uint64_t number : {0ull, 1ull, (1ull << 15) - 1, (1ull << 40) + 7}) {
      for (const std::uint64_t handled : {0ull, 5ull, (1ull << 15) - 1, (1ull << 30) + 3}) {
        const std::uint32_t sent = immediate(notice, number, handled);
        EXPECT_EQ(notice_of(sent), notice);
        EXPECT_EQ(number_of(sent), number & number_mask);
        EXPECT_EQ(handled_of(sent), handled & number_mask);
      }
    }
  }
}

TEST(VerbsWindows, a_credit_for_more_than_was_sent_or_for_less_than_before_is_refused) {
  SendWindow window(8);
  for (int i = 0; i < 3; ++i) (void)window.send();
  EXPECT_FALSE(window.credit(4));
  EXPECT_TRUE(window.credit(0));
  EXPECT_TRUE(window.credit(2));
  EXPECT_TRUE(window.credit(2));
  EXPECT_FALSE(window.credit(1));
  EXPECT_TRUE(window.credit(3));
  EXPECT_FALSE(window.has_credit_for(4));
  EXPECT_TRUE(window.has_credit_for(3));
}

// The proof in window_internal.h, tried: two ends, a network that delays, receivers that take their
// time. Checked at every step: no cell is overwritten, no receive is lacking, nothing gets stuck.
TEST(VerbsWindows, nothing_overruns_and_nothing_gets_stuck) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const std::uint32_t size = 4u << random.below(4);
    struct End {
      explicit End(std::uint32_t size) : out(size), in(size), cells(size) {}
      SendWindow out;
      ReceiveWindow in;
      std::vector<std::uint64_t> cells;  // what the peer has written, by cell
      std::deque<std::uint32_t> arriving;
      std::uint64_t to_send = 2000;
      std::uint64_t sent = 0;
      std::uint64_t received = 0;
    };
    std::vector<End> ends{End(size), End(size)};
    const auto post = [&](int from, std::uint32_t sent) {
      ends[static_cast<std::size_t>(1 - from)].arriving.push_back(sent);
      ASSERT_LE(ends[static_cast<std::size_t>(1 - from)].arriving.size(), 2 * size);
    };
    const auto is_done = [&] {
      return std::all_of(ends.begin(), ends.end(),
                         [](const End& end) { return end.received == 2000; });
    };
    for (int step = 0; !is_done(); ++step) {
      ASSERT_LT(step, 1'000'000) << "stuck";
      const int self = static_cast<int>(random.below(2));
      End& end = ends[static_cast<std::size_t>(self)];
      End& peer = ends[static_cast<std::size_t>(1 - self)];
      if (random.below(2) == 0 && end.to_send > 0 && end.out.is_open()) {
        const std::uint64_t number = end.out.send();
        peer.cells[number % size] = ++end.sent;
        --end.to_send;
        post(self, immediate(Notice::cell, number, end.in.credit()));
      } else if (!end.arriving.empty()) {
        const std::uint32_t came = end.arriving.front();
        end.arriving.pop_front();  // and the receive is posted again
        ASSERT_TRUE(end.out.credit(handled_of(came)));
        if (notice_of(came) != Notice::credit) {
          ASSERT_TRUE(end.in.is_next(number_of(came)));
          ASSERT_EQ(end.cells[end.in.cell()], ++end.received) << "overwritten";
          end.in.handle(random.below(10) == 0);
        }
      }
      if (end.in.credit_is_due()) post(self, immediate(Notice::credit, 0, end.in.credit()));
    }
  }
}

TEST(VerbsWindows, they_shrink_until_all_peers_fit_into_the_device) {
  EXPECT_EQ(window_for(1, 32767, 1 << 20), 64u);
  EXPECT_EQ(window_for(1000, 4194303, 32767), 16u);
  EXPECT_EQ(window_for(100000, 4194303, 32767), 0u);
  for (const int peers : {1, 3, 17, 255, 1000, 4000}) {
    const std::uint32_t window = window_for(peers, 4194303, 32767);
    ASSERT_NE(window, 0u);
    EXPECT_LE(static_cast<std::uint32_t>(peers) * 2 * window, 32767u);
  }
}

// ---- Keys.

RegionKey some_key() {
  RegionKey key;
  key.region = 3;
  key.address = 4096;
  key.bytes = 100;
  key.rkey = 7;
  key.owner.life = 99;
  return key;
}

TEST(VerbsKeys, a_key_is_read_again) {
  const RegionKey key = unpack(pack(some_key()), 1);
  EXPECT_EQ(key.region, 3u);
  EXPECT_EQ(key.owner.life, 99u);
}

TEST(VerbsKeys, a_damaged_key_names_who_published_it) {
  const std::string good = pack(some_key());
  RegionKey wraps = some_key();
  wraps.address = ~std::uint64_t{0};
  RegionKey bell = some_key();
  bell.bell = static_cast<Bell>(9);
  RegionKey link = some_key();
  link.owner.link = static_cast<Link>(0);
  for (const std::string& damaged :
       {std::string(), std::string("nonsense"), good.substr(1), good.substr(0, good.size() - 1),
        good + "x", pack(wraps), pack(bell), pack(link)}) {
    try {
      (void)unpack(damaged, 7);
      ADD_FAILURE() << "read";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::bad_data);
      EXPECT_EQ(error.peer(), 7);
      EXPECT_THAT(error.what(), HasSubstr("rank 7 published a damaged region key"));
    }
  }
}

TEST(VerbsKeys, another_wire_version_is_named_with_both) {
  RegionKey key = some_key();
  key.version = wire_version + 1;
  try {
    (void)unpack(pack(key) + "what a later version adds", 7);
    ADD_FAILURE() << "read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::peer_mismatch);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("version 3"), HasSubstr("version 2"),
                                    HasSubstr("install the same")));
  }
}

}  // namespace
}  // namespace slip::verbs
