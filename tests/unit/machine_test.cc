#include "slipstream/runtime/machine.h"

#include <gmock/gmock.h>
#include <sched.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"

namespace slip {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string topology_file(const std::string& name) {
  return std::string(SLIP_TOPOLOGIES "/") + name;
}

std::string read(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  EXPECT_THAT(text, HasSubstr(from));
  for (std::size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

/// A topology that a test has changed.
Machine read_text(const std::string& xml) {
  const std::string path =
      ::testing::TempDir() + "/machine_test_" + std::to_string(getpid()) + ".xml";
  std::ofstream(path) << xml;
  try {
    Machine machine = read_machine(path);
    std::filesystem::remove(path);
    return machine;
  } catch (const Error&) {
    std::filesystem::remove(path);
    throw;
  }
}

std::vector<std::string> rails(const Machine& machine, const Place& near) {
  std::vector<std::string> names;
  for (const int i : machine.nearest_rails(near)) {
    names.push_back(machine.nics[static_cast<std::size_t>(i)].name);
  }
  return names;
}

TEST(Machine, a_host_of_two_sockets_is_read_with_its_nics_and_gpus) {
  const Machine machine = read_machine(topology_file("two_socket.xml"));
  EXPECT_EQ(machine.packages, 2);
  EXPECT_EQ(machine.numa_nodes, 2);
  ASSERT_EQ(machine.cores.size(), 16U);
  EXPECT_THAT(machine.cores[3].cpus, ElementsAre(3, 19));
  EXPECT_EQ(machine.cores[3].place.package, 0);
  EXPECT_EQ(machine.cores[12].place.package, 1);
  EXPECT_EQ(machine.cores[12].place.numa_node, 1);

  ASSERT_EQ(machine.nics.size(), 5U);
  EXPECT_EQ(machine.nics[0].name, "mlx5_0");
  EXPECT_EQ(machine.nics[0].interface, "ib0");
  EXPECT_TRUE(machine.nics[0].is_rail);
  EXPECT_EQ(machine.nics[2].name, "eno1");
  EXPECT_FALSE(machine.nics[2].is_rail) << "there is RDMA";
  EXPECT_EQ(machine.nics[4].place.package, 1);

  ASSERT_EQ(machine.gpus.size(), 8U) << "the management controller's display is none";
  EXPECT_EQ(machine.gpus[0].name, "0000:12:00.0");
  EXPECT_THAT(machine.gpus[0].model, HasSubstr("A100"));
  EXPECT_EQ(machine.gpus[7].place.numa_node, 1);
}

TEST(Machine, a_laptop_has_its_network_interface_for_a_rail) {
  const Machine machine = read_machine(topology_file("laptop.xml"));
  EXPECT_EQ(machine.packages, 1);
  EXPECT_EQ(machine.cores.size(), 4U);
  ASSERT_EQ(machine.nics.size(), 1U);
  EXPECT_EQ(machine.nics[0].name, "wlp1s0");
  EXPECT_TRUE(machine.nics[0].is_rail);
  EXPECT_EQ(machine.nics[0].place.package, 0) << "there is only one";
  ASSERT_EQ(machine.gpus.size(), 1U);
  EXPECT_EQ(machine.gpus[0].name, "0000:00:02.0");
}

TEST(Machine, the_nearest_rail_shares_the_most) {
  const Machine machine = read_machine(topology_file("two_socket.xml"));
  EXPECT_THAT(rails(machine, machine.gpus[0].place), ElementsAre("mlx5_0"));
  EXPECT_THAT(rails(machine, machine.gpus[1].place), ElementsAre("mlx5_0"));
  EXPECT_THAT(rails(machine, machine.gpus[7].place), ElementsAre("mlx5_3"));
  EXPECT_THAT(rails(machine, machine.cores[0].place), ElementsAre("mlx5_0", "mlx5_1"));
  EXPECT_THAT(rails(machine, machine.cores[15].place), ElementsAre("mlx5_2", "mlx5_3"));
  EXPECT_THAT(rails(machine, Place()), ElementsAre("mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"));
  EXPECT_THAT(rails(Machine(), Place()), IsEmpty());
}

std::string rail_of(const Machine& machine, const std::string& address) {
  const Gpu* const gpu = machine.gpu(address);
  const Nic* const nic = gpu != nullptr ? machine.rail_of(*gpu) : nullptr;
  return nic != nullptr ? nic->name : "none";
}

TEST(Machine, a_gpu_has_the_rail_on_its_switch) {
  const Machine machine = read_machine(topology_file("two_socket.xml"));
  EXPECT_EQ(rail_of(machine, "0000:12:00.0"), "mlx5_0");
  EXPECT_EQ(rail_of(machine, "0000:13:00.0"), "mlx5_0");
  EXPECT_EQ(rail_of(machine, "0000:22:00.0"), "mlx5_1");
  EXPECT_EQ(rail_of(machine, "00000000:93:00.0"), "mlx5_3") << "with a longer domain";
  EXPECT_EQ(rail_of(machine, "0000:14:00.0"), "none") << "no GPU";
  EXPECT_EQ(rail_of(read_machine(topology_file("laptop.xml")), "0000:00:02.0"), "wlp1s0");
}

TEST(Machine, gpus_that_are_equally_near_to_several_rails_share_them) {
  Machine machine;
  const Place here{0, 0, {1}}, there{1, 1, {2}};
  machine.nics = {{"a", "", true, here}, {"b", "", true, here}, {"c", "", true, there}};
  machine.gpus = {{"0000:01:00.0", "", here},
                  {"0000:02:00.0", "", there},
                  {"0000:03:00.0", "", here},
                  {"0000:04:00.0", "", here}};
  std::vector<std::string> names;
  for (const Gpu& gpu : machine.gpus) names.push_back(machine.rail_of(gpu)->name);
  EXPECT_THAT(names, ElementsAre("a", "c", "b", "a"));
  machine.nics.clear();
  EXPECT_EQ(machine.rail_of(machine.gpus[0]), nullptr);
}

TEST(Machine, rdma_devices_without_an_active_port_are_no_rails) {
  const std::string xml = read(topology_file("two_socket.xml"));
  const std::string first = R"(<info name="NodeGUID" value="b8ce:f603:0000:0000"/>)";
  const std::size_t state = xml.find(R"("Port1State" value="4")", xml.find(first));
  Machine machine = read_text(std::string(xml).replace(state + 20, 1, "1"));
  EXPECT_THAT(rails(machine, machine.cores[0].place), ElementsAre("mlx5_1"));

  machine = read_text(replaced(xml, R"("Port1State" value="4")", R"("Port1State" value="1")"));
  EXPECT_THAT(rails(machine, machine.cores[0].place), ElementsAre("eno1"));
}

TEST(Machine, distances_follow_from_what_is_shared) {
  const Machine machine = read_machine(topology_file("two_socket.xml"));
  const auto from_first_gpu = [&](const Place& place) {
    return distance(machine.gpus[0].place, place);
  };
  EXPECT_EQ(from_first_gpu(machine.nics[0].place), Distance::pci_switch);
  EXPECT_EQ(from_first_gpu(machine.nics[1].place), Distance::host_bridge);
  EXPECT_EQ(from_first_gpu(machine.cores[7].place), Distance::numa_node);
  EXPECT_EQ(from_first_gpu(machine.nics[3].place), Distance::host);
  // Two NUMA nodes of one package, and what is nowhere in particular.
  EXPECT_EQ(distance({0, 0, {}}, {0, 1, {}}), Distance::package);
  EXPECT_EQ(distance({0, -1, {}}, {0, -1, {}}), Distance::package);
  EXPECT_EQ(distance({}, {}), Distance::host);
  EXPECT_EQ(to_string(Distance::pci_switch), "PCI switch");
  EXPECT_EQ(to_string(Distance::network), "network");
}

TEST(Machine, cores_that_were_not_allowed_are_left_out) {
  const std::string xml = read(topology_file("laptop.xml"));
  const Machine machine =
      read_text(replaced(xml, R"(allowed_cpuset="0x000000ff")", R"(allowed_cpuset="0x0000000b")"));
  ASSERT_EQ(machine.cores.size(), 2U);
  EXPECT_THAT(machine.cores[0].cpus, ElementsAre(0, 1));
  EXPECT_THAT(machine.cores[1].cpus, ElementsAre(3));
}

TEST(Machine, usable_are_cores_and_hardware_threads_among_the_cpus) {
  const Machine machine = read_machine(topology_file("two_socket.xml"));
  EXPECT_EQ(usable_cores(machine, {}).size(), 16U);
  const std::vector<int> cpus = {1, 9, 25};
  const std::vector<Core> cores = usable_cores(machine, cpus);
  ASSERT_EQ(cores.size(), 2U);
  EXPECT_THAT(cores[0].cpus, ElementsAre(1));
  EXPECT_EQ(cores[1].number, 9);
  EXPECT_THAT(cores[1].cpus, ElementsAre(9, 25));
}

TEST(Machine, what_is_no_topology_is_one_clear_line) {
  try {
    read_machine("/nowhere/topology.xml");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_found);
    EXPECT_THAT(error.what(), HasSubstr("/nowhere/topology.xml cannot be read: No such file"));
  }
  EXPECT_THROW(read_machine("/"), Error);
  const std::string xml = read(topology_file("laptop.xml"));
  const std::vector<std::pair<std::string, std::string>> damaged = {
      {"", "no <topology>"},
      {"two sockets, four NICs\n", "line 1"},
      {xml.substr(0, xml.size() / 2), "line "},
      {"<topology></topology>", "hwloc: "},
      {replaced(xml, "type=\"Core\"", "type=\"Corn\""), "an object of type 'Corn'"},
      {replaced(xml, R"( cpuset="0x00000020")", ""), "the cpuset of PU 5 is ''"},
      {replaced(xml, R"( nodeset="0x00000001")", R"( nodeset="one")"),
       "the nodeset of Machine 0 is 'one'"}};
  for (const auto& [text, what] : damaged) {
    try {
      read_text(text);
      ADD_FAILURE() << what;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::bad_data);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("machine_test_"), HasSubstr(what),
                                      HasSubstr("lstopo --of xml"), Not(HasSubstr("\n"))));
    }
  }
}

/// Cuts, doubles and changes some of `text`.
std::string damage(std::string text, Random& random) {
  const auto at = [&] { return static_cast<std::size_t>(random.below(text.size())); };
  switch (random.below(4)) {
    case 0:
      return text.substr(0, at());
    case 1:
      return text.erase(at(), 1 + random.below(60));
    case 2:
      return text.insert(at(), text.substr(at(), 1 + random.below(200)));
    default:
      for (int i = 0; i < 4; ++i) text[at()] = static_cast<char>(random.below(256));
      return text;
  }
}

TEST(Machine, damaged_files_are_read_or_refused) {
  const std::string xml = read(topology_file("two_socket.xml"));
  testing::for_seeds(50, [&](std::uint64_t seed) {
    Random random(seed);
    try {
      read_text(damage(xml, random));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::bad_data) << error.what();
    }
  });
}

TEST(Machine, this_host_has_the_cores_that_the_kernel_shows) {
  const Machine machine = read_machine();
  std::set<int> cpus;
  for (const Core& core : machine.cores) {
    EXPECT_THAT(core.cpus, Not(IsEmpty()));
    for (const int cpu : core.cpus) EXPECT_TRUE(cpus.insert(cpu).second) << "of two cores: " << cpu;
  }
  for (const int cpu : allowed_cpus()) EXPECT_TRUE(cpus.contains(cpu)) << cpu;
}

std::vector<int> affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

TEST(Machine, a_thread_is_bound_alone) {
  const std::vector<int> before = affinity();
  EXPECT_EQ(allowed_cpus(), before);
  const std::vector<int> last = {before.back()};
  std::thread([&] {
    EXPECT_TRUE(bind_thread(last).ok());
    EXPECT_EQ(affinity(), last);
    EXPECT_EQ(allowed_cpus(), last);
  }).join();
  EXPECT_EQ(affinity(), before);
}

TEST(Machine, a_thread_is_not_bound_to_what_is_not_there) {
  const std::vector<int> absent = {100'000};
  const Status status = bind_thread(absent);
  EXPECT_EQ(status.code(), Code::not_supported);
  EXPECT_THAT(status.message(), HasSubstr("cannot bind a thread to CPUs '100000': "));
  EXPECT_FALSE(bind_thread({}).ok());
}

TEST(Machine, cpus_are_written_as_ranges_and_read_again) {
  for (const std::vector<int>& cpus :
       {std::vector<int>{}, {0}, {7}, {0, 1}, {0, 1, 2, 3, 8}, {1, 3, 5}, {0, 2, 3, 1000}}) {
    EXPECT_EQ(parse_cpus(format_cpus(cpus)), cpus) << format_cpus(cpus);
  }
  EXPECT_EQ(format_cpus(std::vector<int>{0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
  for (const char* bad : {"a", "-1", "1-", "1,", ",1", "3-2", "2,1", "1,1", "0-3,2", "1 2", "1;2",
                          "0-99999999", "99999999999", "0-3\n"}) {
    EXPECT_EQ(parse_cpus(bad), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace slip
