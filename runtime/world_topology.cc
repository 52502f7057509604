#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "slipstream/runtime/world_internal.h"

namespace slip {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Place, package, numa_node, bridges)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Core, number, cpus, place)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Nic, name, interface, is_rail, place)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Gpu, name, model, place)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Machine, packages, numa_nodes, cores, nics, gpus)

namespace {

std::string name_of(int rank) { return fmt::format("machine/{}", rank); }

std::string text_of(const Machine& machine) {
  using nlohmann::json;  // whose text is UTF-8, as names of devices need not be
  return json(machine).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::shared_ptr<const Machine> told_by(int rank, Bootstrap& bootstrap, Duration timeout) {
  const std::string text = bootstrap.get(name_of(rank), timeout);
  try {
    return std::make_shared<const Machine>(nlohmann::json::parse(text).get<Machine>());
  } catch (const nlohmann::json::exception& error) {
    throw Error(
        Code::bad_data,
        fmt::format("rank {} tells of its machine what cannot be read: {}", rank, error.what()),
        rank);
  }
}

}  // namespace

Topology gather_topology(Bootstrap& bootstrap, const std::vector<Topology::Member>& members,
                         Duration timeout) {
  std::vector<int> lowest;  // rank of each host
  for (int rank = 0; rank < bootstrap.size(); ++rank) {
    const auto host = static_cast<std::size_t>(members[static_cast<std::size_t>(rank)].host);
    if (host == lowest.size()) lowest.push_back(rank);
  }
  const auto own = static_cast<std::size_t>(bootstrap.rank());
  if (lowest[static_cast<std::size_t>(members[own].host)] == bootstrap.rank()) {
    bootstrap.put(name_of(bootstrap.rank()), text_of(read_machine()));
  }
  std::vector<std::shared_ptr<const Machine>> machines;
  for (const int rank : lowest) machines.push_back(told_by(rank, bootstrap, timeout));
  return Topology(members, std::move(machines));
}

std::shared_ptr<LazyTopology> local_topology(int workers) {
  std::vector<Topology::Member> members(static_cast<std::size_t>(workers), {0, allowed_cpus()});
  return std::make_shared<LazyTopology>(
      [](int) { return 0; },
      [members = std::move(members)] {
        return Topology(members, {std::make_shared<const Machine>(read_machine())});
      });
}

std::shared_ptr<LazyTopology> modelled_or(std::shared_ptr<LazyTopology> real, int workers,
                                          const WorldOptions& options) {
  const int blocks = options.network.workers_per_host;
  const bool models = blocks > 0 || !options.network.instant() || !options.machines.empty();
  if (real && !models) return real;
  const int per_host = std::max(1, blocks);
  return std::make_shared<LazyTopology>(
      [per_host](int rank) { return rank / per_host; },
      [=, files = options.machines] {
        std::vector<std::shared_ptr<const Machine>> machines;
        for (const std::string& file : files) {
          machines.push_back(std::make_shared<const Machine>(read_machine(file)));
        }
        return topology_in_blocks(workers, per_host, machines);
      });
}

}  // namespace slip
