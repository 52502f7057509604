#include "slipstream/collectives/group_division.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

namespace slip {
namespace {

/// The `workers` of each host that has any.
Division by_host(const std::vector<int>& workers, const Topology& topology) {
  Division hosts(static_cast<std::size_t>(topology.hosts()));
  for (const int worker : workers) {
    hosts[static_cast<std::size_t>(topology.host_of(worker))].push_back(worker);
  }
  std::erase_if(hosts, [](const std::vector<int>& host) { return host.empty(); });
  return hosts;
}

void append(Division& division, Division more) {
  for (std::vector<int>& group : more) division.push_back(std::move(group));
}

}  // namespace

Division divide(std::vector<int> workers, int group_size, Random& random) {
  shuffle(workers, random);
  Division groups;
  for (auto first = workers.begin(); first != workers.end();) {
    const auto left = workers.end() - first;
    const auto end = first + (left <= group_size + 1 ? left : group_size);
    std::sort(first, end);
    groups.emplace_back(first, end);
    first = end;
  }
  return groups;
}

Division inter_step(const std::vector<int>& workers, const Topology& topology, std::uint64_t round,
                    int group_size, Random& random) {
  const std::vector<int> named = heads(topology, round);
  std::vector<int> chosen;
  Division groups;
  for (std::vector<int>& host : by_host(workers, topology)) {
    const int first_choice = named[static_cast<std::size_t>(topology.host_of(host.front()))];
    auto head = std::find(host.begin(), host.end(), first_choice);
    if (head == host.end()) {
      head = host.begin() + static_cast<std::ptrdiff_t>(random.below(host.size()));
    }
    chosen.push_back(*head);
    host.erase(head);
    append(groups, divide(std::move(host), group_size, random));
  }
  append(groups, divide(std::move(chosen), group_size, random));
  return groups;
}

Division intra_step(const std::vector<int>& workers, const Topology& topology) {
  return by_host(workers, topology);
}

std::vector<int> static_group(int rank, std::uint64_t step, const Topology& topology) {
  const std::span<const int> host = topology.workers_of(topology.host_of(rank));
  if (step % 2 == 1) return {host.begin(), host.end()};
  const std::size_t turn = step / 2 % 2;
  const std::size_t head = turn % host.size();
  if (rank == host[head]) {
    std::vector<int> heads;
    for (int h = 0; h < topology.hosts(); ++h) {
      heads.push_back(topology.workers_of(h)[turn % topology.workers_of(h).size()]);
    }
    std::sort(heads.begin(), heads.end());
    return heads;
  }
  // Places behind the head, in a circle; the first is alone if the others are odd in number.
  const auto local =
      static_cast<std::size_t>(std::lower_bound(host.begin(), host.end(), rank) - host.begin());
  const std::size_t place = (local + host.size() - head) % host.size() - 1;
  const std::size_t alone = (host.size() - 1) % 2;
  if (place < alone) return {rank};
  const std::size_t partner_place = (place - alone) % 2 == 0 ? place + 1 : place - 1;
  const int partner = host[(head + 1 + partner_place) % host.size()];
  return {std::min(rank, partner), std::max(rank, partner)};
}

}  // namespace slip
