#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/error.h"

namespace slip {

/// How far apart two things of a machine, or two workers, are: what they have in common at best.
enum class Distance { same, pci_switch, host_bridge, numa_node, package, host, network };

/// "same", "PCI switch", ..., "network".
std::string_view to_string(Distance distance);

/// Where something is on its machine, counted as lstopo does (L#); -1: nowhere in particular.
struct Place {
  int package = -1;
  int numa_node = -1;
  std::vector<int> bridges;  // of a PCI device: from the host bridge towards it
};

/// Of two places on one machine that are not the same thing.
Distance distance(const Place& a, const Place& b);

/// A processor core, as hwloc numbers it.
struct Core {
  int number = -1;        // as lstopo's L#; -1: not known
  std::vector<int> cpus;  // its hardware threads, by the kernel's numbers, ascending
  Place place;
};

/// A network card that hwloc sees.
struct Nic {
  std::string name;       // mlx5_0; of a NIC without RDMA eth0
  std::string interface;  // of an RDMA device, if it has one: ib0
  /// Carries a world's messages: an RDMA device with an active port; on machines without any, every
  /// network interface.
  bool is_rail = false;
  Place place;
};

/// A GPU that hwloc sees.
struct Gpu {
  std::string name;  // 0000:07:00.0, its address on the PCI bus
  std::string model;
  Place place;
};

/// One host's hardware, as hwloc knows it; as values, so any thread may read it. By default nothing
/// is known of it.
struct Machine {
  int packages = 0;
  int numa_nodes = 0;
  std::vector<Core> cores;  // in lstopo's order: those of a package, and of a NUMA node, together
  std::vector<Nic> nics;
  std::vector<Gpu> gpus;

  /// The rails nearest to `place`, as indices into `nics`. Empty if there are none.
  std::vector<int> nearest_rails(const Place& place) const;
  /// The GPU with that address on the PCI bus; null where it is not known.
  const Gpu* gpu(std::string_view address) const;
  /// The rail for one of `gpus`: the nearest to it. GPUs that have the same choice share them in
  /// turn. Null if there are none.
  const Nic* rail_of(const Gpu& gpu) const;
};

/// This host, with cores that others may use; see allowed_cpus(). Takes 10 to 100 ms. Throws
/// Error(io).
Machine read_machine();

/// A file that `lstopo --of xml FILE` has written, with the cores that were allowed there. Throws
/// Error: not_found or bad_data with the file's name and what is wrong.
Machine read_machine(const std::string& file);

/// The CPUs on which the calling thread may run, by the kernel's numbers, ascending. Empty where
/// the kernel does not say.
std::vector<int> allowed_cpus();

/// The cores of `machine` that have some of `cpus`, and only these of their hardware threads. All
/// of them if `cpus` is empty.
std::vector<Core> usable_cores(const Machine& machine, std::span<const int> cpus);

/// Has the calling thread, and those that it starts, run on `cpus` alone.
Status bind_thread(std::span<const int> cpus);

/// "0-3,8", for messages and peers; "" for none.
std::string format_cpus(std::span<const int> cpus);
/// Reads it again; empty where it is not of that form.
std::optional<std::vector<int>> parse_cpus(std::string_view text);

}  // namespace slip
