#include "slipstream/transport/sim/network.h"

#include <gmock/gmock.h>

#include <chrono>
#include <map>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"

namespace slip::sim {
namespace {

using namespace std::chrono_literals;

NetworkOptions two_hosts() {
  NetworkOptions options;
  options.workers_per_host = 2;
  options.link = {1e6, 1ms};         // a megabyte a second: 1 us per byte
  options.inner_link = {1e9, 10us};  // 1 ns per byte
  return options;
}

/// Of a message that is the only one on its way.
Time arrival(Network& network, Time now, int from, int to, std::size_t bytes) {
  return network.arrives(network.reaches(now, from, to, bytes), from, to, bytes);
}

TEST(Network, nothing_modelled_is_instant) {
  EXPECT_TRUE(Network(4, {}).instant());
  EXPECT_FALSE(Network(4, two_hosts()).instant());
}

TEST(Network, hosts_are_blocks_of_ranks) {
  const Network network(4, two_hosts());
  EXPECT_EQ(network.host_of(0), 0);
  EXPECT_EQ(network.host_of(1), 0);
  EXPECT_EQ(network.host_of(2), 1);
  EXPECT_EQ(network.host_of(3), 1);
}

TEST(Network, a_message_takes_its_bytes_and_the_latency) {
  Network network(4, two_hosts());
  EXPECT_EQ(arrival(network, 5s, 0, 2, 1000), 5s + 1ms + 1ms);
  EXPECT_EQ(arrival(network, 5s, 2, 3, 1000), 5s + 1us + 10us);
}

TEST(Network, a_sending_nic_takes_one_message_at_a_time) {
  Network network(6, two_hosts());
  EXPECT_EQ(arrival(network, 0s, 0, 2, 1000), 2ms);
  EXPECT_EQ(arrival(network, 0s, 1, 4, 1000), 3ms) << "the same host's NIC";
  EXPECT_EQ(arrival(network, 10ms, 0, 2, 1000), 12ms) << "free again";
}

TEST(Network, a_receiving_nic_takes_one_message_at_a_time) {
  Network network(6, two_hosts());
  EXPECT_EQ(arrival(network, 0s, 2, 0, 1000), 2ms);
  EXPECT_EQ(arrival(network, 0s, 4, 1, 1000), 3ms);
}

TEST(Network, a_receiving_nic_does_not_wait_for_what_is_held_up_elsewhere) {
  Network network(6, two_hosts());
  EXPECT_EQ(arrival(network, 0s, 0, 2, 5000), 6ms);
  const Time held_up = network.reaches(0s, 0, 4, 1000);
  EXPECT_EQ(held_up, 6ms) << "behind the one before, in the sender's NIC";
  EXPECT_EQ(arrival(network, 0s, 2, 4, 1000), 2ms);
  EXPECT_EQ(network.arrives(held_up, 0, 4, 1000), 7ms);
}

TEST(Network, without_rates_nothing_keeps_anything_waiting) {
  NetworkOptions options;
  options.link.latency = 3ms;
  EXPECT_FALSE(Network(4, options).has_rates());
  options.links = {{1, 1, {1e6, 0s}}};
  EXPECT_TRUE(Network(4, options).has_rates());
}

TEST(Network, inside_a_host_the_nic_is_not_used) {
  Network network(4, two_hosts());
  EXPECT_EQ(arrival(network, 0s, 0, 2, 1'000'000), 1s + 1ms);
  EXPECT_EQ(arrival(network, 0s, 0, 1, 1000), 11us);
}

TEST(Network, a_pair_of_hosts_may_have_a_link_of_its_own_in_each_direction) {
  NetworkOptions options = two_hosts();
  options.links = {{0, 1, {1e3, 1s}}, {1, 0, {0, 5s}}, {2, 2, {0, 7s}}};
  Network network(6, options);
  EXPECT_EQ(arrival(network, 0s, 0, 2, 1000), 2s);
  EXPECT_EQ(arrival(network, 0s, 3, 1, 1000), 5s);
  EXPECT_EQ(arrival(network, 0s, 4, 5, 1000), 7s);
  EXPECT_EQ(arrival(network, 0s, 2, 3, 1000), 11us) << "not named: the inner link";
  EXPECT_EQ(arrival(network, 9s, 0, 4, 1000), 9s + 2ms) << "not named: the link";
}

TEST(Network, a_pairs_own_link_shares_the_nics_with_the_others) {
  NetworkOptions options = two_hosts();
  options.links = {{0, 1, {1e3, 0s}}};
  Network network(6, options);
  EXPECT_EQ(arrival(network, 0s, 0, 2, 1000), 1s);
  EXPECT_EQ(arrival(network, 0s, 1, 4, 1000), 1s + 2ms) << "the sender's was taken";
  EXPECT_EQ(arrival(network, 0s, 4, 3, 1000), 1s + 1ms) << "the receiver's was taken";
}

TEST(Network, one_link_that_takes_time_is_enough_to_take_time) {
  NetworkOptions options;
  options.links = {{0, 1, {}}};
  EXPECT_TRUE(Network(2, options).instant());
  options.links = {{0, 1, {0, 1us}}};
  EXPECT_FALSE(Network(2, options).instant());
}

TEST(Network, links_of_hosts_that_are_none_and_links_given_twice_are_refused) {
  const auto refusal = [](std::vector<HostLink> links) -> std::string {
    NetworkOptions options = two_hosts();
    options.links = std::move(links);
    try {
      const Network network(5, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal({{2, 0, {}}}), "");
  EXPECT_THAT(refusal({{3, 0, {}}}), ::testing::HasSubstr("host 3: the hosts are 0 to 2"));
  EXPECT_THAT(refusal({{0, -1, {}}}), ::testing::HasSubstr("host -1"));
  EXPECT_THAT(refusal({{0, 1, {}}, {1, 0, {}}, {0, 1, {}}}),
              ::testing::HasSubstr("0 -> 1 is given twice"));
}

TEST(Network, a_rate_of_zero_is_unlimited) {
  NetworkOptions options;
  options.link.latency = 3ms;
  Network network(2, options);
  EXPECT_EQ(arrival(network, 1s, 0, 1, 1 << 30), 1s + 3ms);
}

TEST(Network, a_slow_rank_is_slow_both_ways) {
  NetworkOptions options = two_hosts();
  options.slow = {{2, 5.0}};
  Network network(6, options);
  EXPECT_EQ(arrival(network, 0s, 0, 2, 1000), 10ms);
  EXPECT_EQ(arrival(network, 1s, 2, 0, 1000), 1s + 10ms);
  EXPECT_EQ(arrival(network, 2s, 0, 4, 1000), 2s + 2ms);
}

TEST(Network, a_slow_rank_that_is_none_is_refused_with_the_ranks_there_are) {
  NetworkOptions options = two_hosts();
  options.slow = {{4, 5.0}};
  try {
    const Network network(4, options);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("0 to 3"));
  }
}

TEST(Network, messages_of_one_pair_arrive_in_order_and_not_before_they_are_sent) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    Random random(seed);
    NetworkOptions options = two_hosts();
    options.slow = {{static_cast<int>(random.below(6)), random.uniform(1, 5)}};
    options.links = {{0, 1, {random.uniform(1e5, 1e7), 3ms}}, {1, 1, {1e6, 0s}}};
    Network network(6, options);
    std::map<std::pair<int, int>, Time> last;
    Time now{0};
    for (int i = 0; i < 500; ++i) {
      now += Duration(static_cast<Duration::rep>(random.below(1'000'000)));
      const int from = static_cast<int>(random.below(6));
      const int to = static_cast<int>(random.below(6));
      const Time at = arrival(network, now, from, to, random.below(10'000));
      ASSERT_GE(at, now) << "seed " << seed;
      Time& before = last[{from, to}];
      ASSERT_GE(at, before) << "seed " << seed;
      before = at;
    }
  }
}

}  // namespace
}  // namespace slip::sim
