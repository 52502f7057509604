#include "slipstream/runtime/machine.h"

#include <fmt/format.h>
#include <hwloc.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <boost/property_tree/ptree.hpp>
#include <boost/property_tree/xml_parser.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <sstream>
#include <system_error>
#include <utility>

namespace slip {
namespace {

using Hwloc = std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)>;

Hwloc new_hwloc() {
  hwloc_topology_t hwloc = nullptr;
  if (hwloc_topology_init(&hwloc) != 0) throw_errno("hwloc");
  Hwloc owned(hwloc, hwloc_topology_destroy);
  // Others may be allowed what this process is not; and a worker's thread stays where it is.
  hwloc_topology_set_flags(
      hwloc, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED | HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING);
  hwloc_topology_set_io_types_filter(hwloc, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  // GPUs are known by their PCI class; these would start drivers and look for displays.
  for (const char* component : {"cuda", "gl", "levelzero", "nvml", "opencl", "rsmi"}) {
    hwloc_topology_set_components(hwloc, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, component);
  }
  return owned;
}

/// The first object of a type that has all of `object`; -1 where that is said of none.
int index_around(hwloc_topology_t hwloc, hwloc_obj_type_t type, hwloc_obj_t object) {
  if (object->cpuset == nullptr || hwloc_bitmap_iszero(object->cpuset)) return -1;
  for (hwloc_obj_t o = nullptr; (o = hwloc_get_next_obj_by_type(hwloc, type, o)) != nullptr;) {
    if (hwloc_bitmap_isincluded(object->cpuset, o->cpuset))
      return static_cast<int>(o->logical_index);
  }
  return -1;
}

Place place_of(hwloc_topology_t hwloc, hwloc_obj_t object) {
  Place place;
  for (hwloc_obj_t o = object->parent; o != nullptr; o = o->parent) {
    if (o->type == HWLOC_OBJ_BRIDGE) place.bridges.push_back(static_cast<int>(o->logical_index));
  }
  std::reverse(place.bridges.begin(), place.bridges.end());
  const hwloc_obj_t near = hwloc_get_non_io_ancestor_obj(hwloc, object);
  place.package = index_around(hwloc, HWLOC_OBJ_PACKAGE, near);
  place.numa_node = index_around(hwloc, HWLOC_OBJ_NUMANODE, near);
  return place;
}

std::vector<Core> cores_of(hwloc_topology_t hwloc) {
  // Of this machine each worker knows by itself what it is allowed.
  const hwloc_const_cpuset_t allowed = hwloc_topology_is_thissystem(hwloc)
                                           ? hwloc_topology_get_topology_cpuset(hwloc)
                                           : hwloc_topology_get_allowed_cpuset(hwloc);
  const bool has_cores = hwloc_get_nbobjs_by_type(hwloc, HWLOC_OBJ_CORE) > 0;
  const hwloc_obj_type_t type = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  std::vector<Core> cores;
  for (hwloc_obj_t o = nullptr; (o = hwloc_get_next_obj_by_type(hwloc, type, o)) != nullptr;) {
    Core core{static_cast<int>(o->logical_index), {}, place_of(hwloc, o)};
    for (int cpu = -1; (cpu = hwloc_bitmap_next(o->cpuset, cpu)) >= 0;) {
      if (hwloc_bitmap_isset(allowed, static_cast<unsigned>(cpu))) core.cpus.push_back(cpu);
    }
    if (!core.cpus.empty()) cores.push_back(std::move(core));
  }
  return cores;
}

/// Not so if it says of all its ports that they are something else.
bool has_active_port(hwloc_obj_t rdma) {
  bool says = false;
  for (unsigned i = 0; i < rdma->infos_count; ++i) {
    const std::string_view name = rdma->infos[i].name;
    if (!name.starts_with("Port") || !name.ends_with("State")) continue;
    if (std::string_view(rdma->infos[i].value).starts_with("4")) return true;
    says = true;
  }
  return !says;
}

std::string name_of(hwloc_obj_t device) { return device->name != nullptr ? device->name : "?"; }

std::vector<Nic> nics_of(hwloc_topology_t hwloc) {
  std::vector<Nic> nics;
  std::vector<hwloc_obj_t> cards;  // beside `nics`: what the interfaces of one card share
  std::vector<bool> has_rdma;
  for (hwloc_obj_t o = nullptr; (o = hwloc_get_next_osdev(hwloc, o)) != nullptr;) {
    const bool is_rdma = o->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
    if (!is_rdma && o->attr->osdev.type != HWLOC_OBJ_OSDEV_NETWORK) continue;
    const hwloc_obj_t card = o->parent->type == HWLOC_OBJ_PCI_DEVICE ? o->parent : o;
    const auto known = std::find(cards.begin(), cards.end(), card) - cards.begin();
    const auto i = static_cast<std::size_t>(known);
    if (i == cards.size()) {
      cards.push_back(card);
      has_rdma.push_back(false);
      nics.push_back({"", "", false, place_of(hwloc, o)});
    }
    if (!is_rdma && nics[i].interface.empty()) nics[i].interface = name_of(o);
    if (is_rdma && !has_rdma[i]) {
      has_rdma[i] = true;
      nics[i].name = name_of(o);
      nics[i].is_rail = has_active_port(o);
    }
  }
  const bool any =
      std::any_of(nics.begin(), nics.end(), [](const Nic& nic) { return nic.is_rail; });
  for (std::size_t i = 0; i < nics.size(); ++i) {
    if (has_rdma[i]) continue;
    nics[i].name = std::exchange(nics[i].interface, "");
    nics[i].is_rail = !any;
  }
  return nics;
}

bool is_gpu(const hwloc_obj_attr_u::hwloc_pcidev_attr_s& pci) {
  constexpr unsigned amd = 0x1002, intel = 0x8086, nvidia = 0x10de;
  // A server's display is its management controller's, unless one of these has made it.
  const bool draws = pci.class_id >> 8 == 0x03;
  const bool made_by = pci.vendor_id == amd || pci.vendor_id == intel || pci.vendor_id == nvidia;
  const bool accelerates = pci.class_id >> 8 == 0x12;
  return (draws && made_by) || accelerates;
}

std::vector<Gpu> gpus_of(hwloc_topology_t hwloc) {
  std::vector<Gpu> gpus;
  for (hwloc_obj_t o = nullptr; (o = hwloc_get_next_pcidev(hwloc, o)) != nullptr;) {
    const hwloc_obj_attr_u::hwloc_pcidev_attr_s& pci = o->attr->pcidev;
    if (!is_gpu(pci)) continue;
    const char* model = hwloc_obj_get_info_by_name(o, "PCIDevice");
    gpus.push_back(
        {fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.dev, pci.func),
         model != nullptr ? model : "", place_of(hwloc, o)});
  }
  return gpus;
}

Machine machine_of(hwloc_topology_t hwloc) {
  Machine machine;
  machine.packages = hwloc_get_nbobjs_by_type(hwloc, HWLOC_OBJ_PACKAGE);
  machine.numa_nodes = hwloc_get_nbobjs_by_type(hwloc, HWLOC_OBJ_NUMANODE);
  machine.cores = cores_of(hwloc);
  machine.nics = nics_of(hwloc);
  machine.gpus = gpus_of(hwloc);
  return machine;
}

using boost::property_tree::ptree;

/// hwloc trusts its XML, and would crash on objects that lack what each must have.
std::string problem_of(const ptree& tree) {
  for (const auto& [tag, object] : tree) {
    if (tag != "object") continue;
    const auto attribute = [&](const char* name) {
      return object.get<std::string>(ptree::path_type(fmt::format("<xmlattr>/{}", name), '/'), "");
    };
    const std::string name = attribute("type");
    hwloc_obj_type_t type{};
    if (hwloc_type_sscanf(name.c_str(), &type, nullptr, 0) != 0) {
      return fmt::format("an object of type '{}'", name);
    }
    if (!hwloc_obj_type_is_io(type) && type != HWLOC_OBJ_MISC) {
      for (const char* set : {"cpuset", "complete_cpuset", "nodeset", "complete_nodeset"}) {
        const std::string text = attribute(set);
        if (text.starts_with("0x") && text.find_first_not_of("0123456789abcdefx,.") == text.npos)
          continue;
        return fmt::format("the {} of {} {} is '{}'", set, name, attribute("os_index"), text);
      }
    }
    if (std::string problem = problem_of(object); !problem.empty()) return problem;
  }
  return "";
}

std::string problem_of(const std::string& xml) {
  constexpr std::size_t most = 256 << 20;
  if (xml.size() > most) return fmt::format("more than {} bytes", most);
  try {
    ptree tree;
    std::istringstream in(xml);
    read_xml(in, tree);
    const auto topology = tree.get_child_optional("topology");
    return topology ? problem_of(*topology) : "no <topology>";
  } catch (const boost::property_tree::xml_parser_error& error) {
    return fmt::format("line {}: {}", error.line(), error.message());
  }
}

}  // namespace

std::string_view to_string(Distance distance) {
  constexpr std::array<std::string_view, 7> names = {
      "same", "PCI switch", "host bridge", "NUMA node", "package", "host", "network"};
  return names[static_cast<std::size_t>(distance)];
}

Distance distance(const Place& a, const Place& b) {
  const auto end = std::min(a.bridges.size(), b.bridges.size());
  std::size_t shared = 0;
  while (shared < end && a.bridges[shared] == b.bridges[shared]) ++shared;
  if (shared >= 2) return Distance::pci_switch;
  if (shared == 1) return Distance::host_bridge;
  if (a.numa_node >= 0 && a.numa_node == b.numa_node) return Distance::numa_node;
  if (a.package >= 0 && a.package == b.package) return Distance::package;
  return Distance::host;
}

std::vector<int> Machine::nearest_rails(const Place& place) const {
  std::vector<int> nearest;
  Distance least = Distance::network;
  for (std::size_t i = 0; i < nics.size(); ++i) {
    if (!nics[i].is_rail) continue;
    const Distance d = distance(nics[i].place, place);
    if (d < least) nearest.clear();
    least = std::min(least, d);
    if (d == least) nearest.push_back(static_cast<int>(i));
  }
  return nearest;
}

const Gpu* Machine::gpu(std::string_view address) const {
  // CUDA and hwloc may differ in the digits of the domain.
  const auto found = std::find_if(gpus.begin(), gpus.end(), [&](const Gpu& gpu) {
    return address.ends_with(gpu.name) || gpu.name.ends_with(address);
  });
  return found != gpus.end() ? &*found : nullptr;
}

const Nic* Machine::rail_of(const Gpu& gpu) const {
  const std::vector<int> nearest = nearest_rails(gpu.place);
  if (nearest.empty()) return nullptr;
  std::size_t before = 0;  // with the same choice
  for (const Gpu& other : gpus) {
    if (&other == &gpu) break;
    if (nearest_rails(other.place) == nearest) ++before;
  }
  return &nics[static_cast<std::size_t>(nearest[before % nearest.size()])];
}

Machine read_machine() {
  const Hwloc hwloc = new_hwloc();
  static std::mutex one_at_a_time;  // hwloc asks libudev, whose globals nothing guards
  const std::lock_guard lock(one_at_a_time);
  if (hwloc_topology_load(hwloc.get()) != 0) throw_errno("hwloc cannot read this machine");
  return machine_of(hwloc.get());
}

Machine read_machine(const std::string& file) {
  std::ifstream in(file);
  in.peek();  // a directory opens, too
  if (!in.is_open() || in.bad()) {
    throw Error(Code::not_found, fmt::format("{} cannot be read: {}", file, std::strerror(errno)));
  }
  std::ostringstream content;
  content << in.rdbuf();
  const std::string xml = content.str();
  std::string problem = problem_of(xml);
  const Hwloc hwloc = new_hwloc();
  if (problem.empty()) {
    const int bytes = static_cast<int>(xml.size() + 1);  // with the zero at its end
    const bool loads = hwloc_topology_set_xmlbuffer(hwloc.get(), xml.c_str(), bytes) == 0 &&
                       hwloc_topology_load(hwloc.get()) == 0;
    if (!loads) problem = fmt::format("hwloc: {}", std::strerror(errno));
  }
  if (!problem.empty()) {
    throw Error(Code::bad_data, fmt::format("{} is no whole topology of hwloc ({}); write one with "
                                            "'lstopo --of xml FILE'",
                                            file, problem));
  }
  return machine_of(hwloc.get());
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  // Too small a set is refused.
  for (int size = CPU_SETSIZE; size <= 1 << 20; size *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(size),
                                                               [](cpu_set_t* s) { CPU_FREE(s); });
    const std::size_t bytes = CPU_ALLOC_SIZE(size);
    if (set == nullptr) break;
    CPU_ZERO_S(bytes, set.get());
    if (sched_getaffinity(0, bytes, set.get()) != 0) {
      if (errno == EINVAL) continue;
      break;
    }
    for (int cpu = 0; cpu < size; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set.get())) cpus.push_back(cpu);
    }
    break;
  }
  return cpus;
}

std::vector<Core> usable_cores(const Machine& machine, std::span<const int> cpus) {
  if (cpus.empty()) return machine.cores;
  std::vector<Core> usable;
  for (const Core& core : machine.cores) {
    Core part{core.number, {}, core.place};
    std::copy_if(core.cpus.begin(), core.cpus.end(), std::back_inserter(part.cpus),
                 [&](int cpu) { return std::binary_search(cpus.begin(), cpus.end(), cpu); });
    if (!part.cpus.empty()) usable.push_back(std::move(part));
  }
  return usable;
}

Status bind_thread(std::span<const int> cpus) {
  const int size = cpus.empty() ? 1 : *std::max_element(cpus.begin(), cpus.end()) + 1;
  const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(size),
                                                             [](cpu_set_t* s) { CPU_FREE(s); });
  const std::size_t bytes = CPU_ALLOC_SIZE(size);
  if (set != nullptr) {
    CPU_ZERO_S(bytes, set.get());
    for (const int cpu : cpus) CPU_SET_S(cpu, bytes, set.get());
    if (sched_setaffinity(0, bytes, set.get()) == 0) return {};
  }
  return {Code::not_supported, fmt::format("cannot bind a thread to CPUs '{}': {}",
                                           format_cpus(cpus), std::strerror(errno))};
}

std::string format_cpus(std::span<const int> cpus) {
  std::string text;
  for (std::size_t first = 0, last = 0; first < cpus.size(); first = last + 1) {
    for (last = first; last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1;) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", cpus[first]);
    if (last > first) text += fmt::format("-{}", cpus[last]);
  }
  return text;
}

std::optional<std::vector<int>> parse_cpus(std::string_view text) {
  constexpr int most = 1 << 20;
  std::vector<int> cpus;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&](int* value) {
    const auto [stop, error] = std::from_chars(at, end, *value);
    at = stop;
    return error == std::errc() && *value >= 0 && *value < most;
  };
  while (at != end) {
    int first = 0;
    if (!cpus.empty() && *at++ != ',') return {};
    if (!number(&first) || (!cpus.empty() && first <= cpus.back())) return {};
    int last = first;
    if (at != end && *at == '-' && (++at, !number(&last) || last < first)) return {};
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace slip
