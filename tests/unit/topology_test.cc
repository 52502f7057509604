#include "slipstream/runtime/topology.h"

#include <gmock/gmock.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/runtime/launch.h"
#include "slipstream/runtime/world_internal.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSubsetOf;
using ::testing::Not;

std::string file(const std::string& name) { return std::string(SLIP_TOPOLOGIES "/") + name; }

std::shared_ptr<const Machine> machine(const std::string& name) {
  return std::make_shared<const Machine>(read_machine(file(name)));
}

std::vector<int> cores(const Topology& topology) {
  std::vector<int> numbers;
  for (int rank = 0; rank < topology.size(); ++rank) numbers.push_back(topology.core(rank).number);
  return numbers;
}

std::vector<std::string> nics(const Topology& topology) {
  std::vector<std::string> names;
  for (int rank = 0; rank < topology.size(); ++rank) {
    const Nic* nic = topology.nic(rank);
    names.push_back(nic != nullptr ? nic->name : "none");
  }
  return names;
}

/// "mlx5_0:0 mlx5_1:2": which worker leads which rail.
std::string leaders(const Topology& topology, int host) {
  std::string text;
  for (const Topology::Leader& leader : topology.leaders(host)) {
    const auto& all = topology.machine(host).nics;
    const std::string nic =
        leader.nic < 0 ? "none" : all[static_cast<std::size_t>(leader.nic)].name;
    text += (text.empty() ? "" : " ") + nic + ":" + std::to_string(leader.rank);
  }
  return text;
}

TEST(Topology, workers_of_a_two_socket_host_share_its_cores_and_nics_evenly) {
  const Topology topology = topology_in_blocks(8, 8, {machine("two_socket.xml")});
  EXPECT_THAT(cores(topology), ElementsAre(0, 2, 4, 6, 8, 10, 12, 14));
  EXPECT_THAT(topology.core(5).cpus, ElementsAre(10, 26));
  EXPECT_THAT(nics(topology), ElementsAre("mlx5_0", "mlx5_0", "mlx5_1", "mlx5_1", "mlx5_2",
                                          "mlx5_2", "mlx5_3", "mlx5_3"));
  EXPECT_EQ(leaders(topology, 0), "mlx5_0:0 mlx5_1:2 mlx5_2:4 mlx5_3:6");
  EXPECT_EQ(topology.distance(2, 2), Distance::same);
  EXPECT_EQ(topology.distance(0, 3), Distance::numa_node);
  EXPECT_EQ(topology.distance(3, 4), Distance::host);
}

TEST(Topology, few_workers_are_on_both_sockets_and_lead_several_nics) {
  const Topology topology = topology_in_blocks(2, 2, {machine("two_socket.xml")});
  EXPECT_THAT(cores(topology), ElementsAre(0, 8));
  EXPECT_THAT(nics(topology), ElementsAre("mlx5_0", "mlx5_2"));
  EXPECT_EQ(leaders(topology, 0), "mlx5_0:0 mlx5_1:0 mlx5_2:1 mlx5_3:1");
}

TEST(Topology, more_workers_than_cores_share_them_in_blocks) {
  const Topology topology = topology_in_blocks(8, 8, {machine("laptop.xml")});
  EXPECT_THAT(cores(topology), ElementsAre(0, 0, 1, 1, 2, 2, 3, 3));
  EXPECT_THAT(nics(topology), Each(std::string("wlp1s0")));
  EXPECT_EQ(leaders(topology, 0), "wlp1s0:0");
  EXPECT_EQ(topology.distance(0, 1), Distance::same);
  EXPECT_EQ(topology.distance(1, 2), Distance::numa_node);
}

TEST(Topology, each_worker_keeps_to_the_cpus_that_it_is_allowed) {
  const auto host = machine("two_socket.xml");
  // As a launcher binds: two workers on a part of the second socket, then two on CPUs of their own,
  // the last with one hardware thread of its core.
  const Topology topology({{0, {9, 10, 11, 12}}, {0, {9, 10, 11, 12}}, {0, {2, 18}}, {0, {3}}},
                          {host});
  EXPECT_THAT(cores(topology), ElementsAre(9, 11, 2, 3));
  EXPECT_THAT(topology.core(0).cpus, ElementsAre(9));
  EXPECT_THAT(topology.core(2).cpus, ElementsAre(2, 18));
  EXPECT_THAT(topology.core(3).cpus, ElementsAre(3));
  EXPECT_EQ(leaders(topology, 0), "mlx5_0:2 mlx5_1:3 mlx5_2:0 mlx5_3:1");

  const Topology elsewhere({{0, {500}}, {0, {1}}}, {host});
  EXPECT_THAT(elsewhere.core(0).cpus, IsEmpty()) << "hwloc knows no such CPU";
  EXPECT_EQ(elsewhere.distance(0, 1), Distance::host);
}

TEST(Topology, leaders_are_found_far_from_a_nic_where_nobody_is_near) {
  const std::vector<int> second_socket = {8, 9};
  const Topology topology({{0, second_socket}, {0, second_socket}}, {machine("two_socket.xml")});
  EXPECT_THAT(nics(topology), ElementsAre("mlx5_2", "mlx5_3"));
  EXPECT_EQ(leaders(topology, 0), "mlx5_0:0 mlx5_1:1 mlx5_2:0 mlx5_3:1");
}

TEST(Topology, a_job_of_two_equal_hosts_has_leaders_on_each_and_heads_that_take_turns) {
  const Topology topology = topology_in_blocks(16, 8, {machine("two_socket.xml")});
  EXPECT_EQ(topology.hosts(), 2);
  EXPECT_EQ(topology.workers_per_host(), 8);
  EXPECT_EQ(leaders(topology, 0), "mlx5_0:0 mlx5_1:2 mlx5_2:4 mlx5_3:6");
  EXPECT_EQ(leaders(topology, 1), "mlx5_0:8 mlx5_1:10 mlx5_2:12 mlx5_3:14");
  EXPECT_EQ(topology.distance(0, 8), Distance::network);
  EXPECT_THAT(heads(topology, 0), ElementsAre(0, 8));
  EXPECT_THAT(heads(topology, 1), ElementsAre(2, 10));
  EXPECT_THAT(heads(topology, 3), ElementsAre(6, 14));
  EXPECT_THAT(heads(topology, 4), ElementsAre(0, 8));
}

TEST(Topology, a_job_of_two_unlike_hosts_goes_by_the_machine_of_each) {
  const Topology topology =
      topology_in_blocks(7, 4, {machine("two_socket.xml"), machine("laptop.xml")});
  EXPECT_THAT(topology.workers_of(0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(topology.workers_of(1), ElementsAre(4, 5, 6));
  EXPECT_EQ(topology.workers_per_host(), 4) << "the last host has fewer";
  EXPECT_THAT(cores(topology), ElementsAre(0, 4, 8, 12, 0, 1, 2));
  EXPECT_EQ(leaders(topology, 0), "mlx5_0:0 mlx5_1:1 mlx5_2:2 mlx5_3:3");
  EXPECT_EQ(leaders(topology, 1), "wlp1s0:4");
  EXPECT_THAT(heads(topology, 0), ElementsAre(0, 4));
  EXPECT_THAT(heads(topology, 2), ElementsAre(2, 4));
  EXPECT_EQ(topology.distance(4, 6), Distance::numa_node);
}

TEST(Topology, hosts_that_hold_no_blocks_of_ranks_are_told_apart) {
  const auto unknown = std::make_shared<const Machine>();
  const Topology cyclic({{0}, {1}, {0}, {1}}, {unknown, unknown});
  EXPECT_THAT(cyclic.workers_of(1), ElementsAre(1, 3));
  try {
    (void)cyclic.workers_per_host();
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_supported);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("rank 1 is on host 1, not 0"), HasSubstr("srun")));
  }
  EXPECT_THROW((void)Topology({{0}, {1}, {1}}, {unknown, unknown}).workers_per_host(), Error);
}

TEST(Topology, hosts_without_workers_and_workers_without_hosts_are_refused) {
  const auto unknown = std::make_shared<const Machine>();
  EXPECT_THROW(Topology({{0}, {2}}, {unknown, unknown}), Error);
  EXPECT_THROW(Topology({{-1}}, {unknown}), Error);
  EXPECT_THROW(Topology({{0}, {0}}, {unknown, unknown}), Error);
  EXPECT_THROW(topology_in_blocks(0, 1), Error);
  EXPECT_THROW(topology_in_blocks(4, 0), Error);
  EXPECT_THROW(topology_in_blocks(6, 2, {unknown, unknown}), Error);
}

TEST(Topology, thousands_of_modelled_hosts_cost_little) {
  const Topology topology = topology_in_blocks(16'384, 2, {machine("two_socket.xml")});
  EXPECT_EQ(topology.hosts(), 8192);
  EXPECT_EQ(leaders(topology, 8191), "mlx5_0:16382 mlx5_1:16382 mlx5_2:16383 mlx5_3:16383");
  const Topology one_host = topology_in_blocks(16'384, 16'384, {machine("two_socket.xml")});
  EXPECT_EQ(leaders(one_host, 0), "mlx5_0:0 mlx5_1:4096 mlx5_2:8192 mlx5_3:12288");
}

// ---- Of a world.

TEST(WorldTopology, simulated_workers_share_one_of_a_host_each) {
  std::set<const Topology*> seen;
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  launch(
      100,
      [&](World& world) {
        seen.insert(&world.topology());
        EXPECT_EQ(world.topology().host_of(world.rank()), world.rank());
        EXPECT_EQ(world.topology().leaders(world.rank()).front().rank, world.rank());
        EXPECT_EQ(world.topology().nic(world.rank()), nullptr);
        EXPECT_EQ(world.bind().code(), Code::not_supported);
      },
      options);
  EXPECT_EQ(seen.size(), 1U);
}

class ModelledHosts : public ::testing::TestWithParam<LaunchKind> {};

TEST_P(ModelledHosts, have_the_machines_that_the_options_name) {
  LaunchOptions options;
  options.kind = GetParam();
  options.world.network.workers_per_host = 4;
  options.world.machines = {file("two_socket.xml"), file("laptop.xml")};
  launch(
      8,
      [](World& world) {
        const Topology& topology = world.topology();
        EXPECT_EQ(topology.hosts(), 2);
        EXPECT_EQ(leaders(topology, 0), "mlx5_0:0 mlx5_1:1 mlx5_2:2 mlx5_3:3");
        EXPECT_EQ(leaders(topology, 1), "wlp1s0:4");
      },
      options);
}

TEST_P(ModelledHosts, end_the_world_where_a_file_is_not_there) {
  LaunchOptions options;
  options.kind = GetParam();
  options.world.machines = {"/nowhere.xml"};
  EXPECT_THROW(launch(
                   2, [](World& world) { (void)world.topology(); }, options),
               Error);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ModelledHosts,
                         ::testing::Values(LaunchKind::threads, LaunchKind::simulated));

TEST(WorldTopology, threads_are_on_this_host_and_bind_to_its_cores) {
  const std::vector<int> allowed = allowed_cpus();
  const int workers = static_cast<int>(usable_cores(read_machine(), allowed).size());
  std::mutex mutex;
  std::set<int> taken;
  launch(workers, [&](World& world) {
    EXPECT_EQ(world.topology().hosts(), 1);
    const Status status = world.bind();
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<int> cpus = allowed_cpus();
    EXPECT_EQ(cpus, world.topology().core(world.rank()).cpus);
    EXPECT_THAT(cpus, AllOf(Not(IsEmpty()), IsSubsetOf(allowed)));
    const std::lock_guard lock(mutex);
    for (const int cpu : cpus) EXPECT_TRUE(taken.insert(cpu).second) << "bound to by two: " << cpu;
  });
  EXPECT_EQ(taken.size(), allowed.size());
  EXPECT_EQ(allowed_cpus(), allowed) << "the thread that launches is not bound";
}

TEST(WorldTopology, a_restricted_process_binds_within_what_it_may_use) {
  const std::vector<int> last = {allowed_cpus().back()};
  std::thread([&] {
    ASSERT_TRUE(bind_thread(last).ok());
    launch(3, [&](World& world) {
      EXPECT_TRUE(world.bind().ok());
      EXPECT_EQ(allowed_cpus(), last);
    });
  }).join();
}

TEST(WorldTopology, modelled_hosts_do_not_change_where_threads_are_bound) {
  LaunchOptions options;
  options.world.network.workers_per_host = 1;
  launch(
      2,
      [](World& world) {
        EXPECT_EQ(world.topology().hosts(), 2);
        EXPECT_THAT(world.topology().core(world.rank()).cpus, IsEmpty());
        EXPECT_TRUE(world.bind().ok());
      },
      options);
}

TEST(WorldTopology, the_lowest_rank_of_each_host_tells_the_others_of_its_machine) {
  const auto allowed = allowed_cpus();
  launch(5, [&](World& world) {
    const std::vector<Topology::Member> members = {
        {0, allowed}, {1, allowed}, {0, allowed}, {2, allowed}, {1, allowed}};
    const Topology topology = gather_topology(world.bootstrap(), members, 30s);
    EXPECT_EQ(topology.hosts(), 3);
    EXPECT_THAT(topology.workers_of(1), ElementsAre(1, 4));
    const Machine here = read_machine();
    for (int host = 0; host < 3; ++host) {
      const Machine& there = topology.machine(host);
      EXPECT_EQ(there.packages, here.packages);
      ASSERT_EQ(there.cores.size(), here.cores.size());
      EXPECT_EQ(there.cores.back().cpus, here.cores.back().cpus);
      EXPECT_EQ(there.cores.back().place.numa_node, here.cores.back().place.numa_node);
      ASSERT_EQ(there.nics.size(), here.nics.size());
      for (std::size_t i = 0; i < here.nics.size(); ++i) {
        EXPECT_EQ(there.nics[i].name, here.nics[i].name);
        EXPECT_EQ(there.nics[i].place.bridges, here.nics[i].place.bridges);
      }
    }
  });
}

TEST(WorldTopology, a_machine_that_cannot_be_read_names_who_told_of_it) {
  for (const char* text : {"", "{", "[]", R"({"packages": "two"})", R"({"packages": 2})"}) {
    launch(2, [&](World& world) {
      if (world.rank() == 0) {
        world.bootstrap().put("machine/0", text);
        return;
      }
      try {
        gather_topology(world.bootstrap(), {{0}, {0}}, 30s);
        ADD_FAILURE() << text;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::bad_data);
        EXPECT_EQ(error.peer(), 0);
        EXPECT_THAT(error.what(),
                    AllOf(HasSubstr("rank 0 tells of its machine"), Not(HasSubstr("\n"))));
      }
    });
  }
}

}  // namespace
}  // namespace slip
