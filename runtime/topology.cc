#include "slipstream/runtime/topology.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <utility>

namespace slip {
namespace {

/// Deals `places` to `count` in order, as evenly as can be: which one the `index`-th gets.
std::size_t dealt(std::size_t index, std::size_t count, std::size_t places) {
  return index * places / count;
}

}  // namespace

Topology::Topology(const std::vector<Member>& members,
                   std::vector<std::shared_ptr<const Machine>> machines)
    : workers_(members.size()), machines_(std::move(machines)) {
  for (std::size_t rank = 0; rank < members.size(); ++rank) {
    const int host = members[rank].host;
    if (host < 0 || host >= hosts()) {
      throw Error(Code::invalid_argument,
                  fmt::format("rank {} is on host {} of {}", rank, host, hosts()));
    }
    workers_[rank].host = host;
  }
  list_hosts();
  assign_cores(members);
  assign_nics();
  choose_leaders();
}

void Topology::list_hosts() {
  first_rank_.assign(machines_.size() + 1, 0);
  for (const Worker& w : workers_) ++first_rank_[static_cast<std::size_t>(w.host) + 1];
  const auto empty = std::find(first_rank_.begin() + 1, first_rank_.end(), 0U);
  if (empty != first_rank_.end()) {
    throw Error(Code::invalid_argument,
                fmt::format("no worker is on host {}", empty - first_rank_.begin() - 1));
  }
  std::partial_sum(first_rank_.begin(), first_rank_.end(), first_rank_.begin());
  ranks_.resize(workers_.size());
  std::vector<std::size_t> next = first_rank_;
  for (int rank = 0; rank < size(); ++rank) {
    ranks_[next[static_cast<std::size_t>(host_of(rank))]++] = rank;
  }
}

void Topology::assign_cores(const std::vector<Member>& members) {
  for (int host = 0; host < hosts(); ++host) {
    if (machine(host).cores.empty()) continue;
    std::map<std::vector<int>, std::vector<int>> sharers;  // of the same CPUs
    for (const int rank : workers_of(host)) {
      sharers[members[static_cast<std::size_t>(rank)].cpus].push_back(rank);
    }
    for (const auto& [cpus, ranks] : sharers) {
      const std::vector<Core> cores = usable_cores(machine(host), cpus);
      if (cores.empty()) continue;
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        workers_[static_cast<std::size_t>(ranks[i])].core =
            cores[dealt(i, ranks.size(), cores.size())];
      }
    }
  }
}

void Topology::assign_nics() {
  for (int host = 0; host < hosts(); ++host) {
    if (machine(host).nics.empty()) continue;
    std::map<std::vector<int>, std::vector<int>> sharers;  // of the same choice
    for (const int rank : workers_of(host)) {
      sharers[machine(host).nearest_rails(core(rank).place)].push_back(rank);
    }
    for (const auto& [nics, ranks] : sharers) {
      if (nics.empty()) continue;
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        workers_[static_cast<std::size_t>(ranks[i])].nic =
            nics[dealt(i, ranks.size(), nics.size())];
      }
    }
  }
}

void Topology::choose_leaders() {
  first_leader_ = {0};
  for (int host = 0; host < hosts(); ++host) {
    std::vector<std::pair<int, Nearest>> rails;
    for (std::size_t i = 0; i < machine(host).nics.size(); ++i) {
      const Nic& nic = machine(host).nics[i];
      if (nic.is_rail) rails.emplace_back(static_cast<int>(i), nearest_to(nic, host));
    }
    std::map<Nearest, std::size_t> sharing;
    for (const auto& [nic, nearest] : rails) ++sharing[nearest];
    std::map<Nearest, std::size_t> done;
    for (const auto& [nic, nearest] : rails) {
      const auto& ranks = nearest.second;
      leaders_.push_back({ranks[dealt(done[nearest]++, sharing[nearest], ranks.size())], nic});
    }
    if (rails.empty()) leaders_.push_back({workers_of(host).front(), -1});
    first_leader_.push_back(leaders_.size());
  }
}

Topology::Nearest Topology::nearest_to(const Nic& nic, int host) const {
  Nearest nearest{Distance::network, {}};
  for (const int rank : workers_of(host)) {
    const Distance d = slip::distance(nic.place, core(rank).place);
    if (d < nearest.first) nearest = {d, {}};
    if (d == nearest.first) nearest.second.push_back(rank);
  }
  return nearest;
}

int Topology::workers_per_host() const {
  const int block = static_cast<int>(workers_of(0).size());
  for (int rank = 0; rank < size(); ++rank) {
    if (host_of(rank) == rank / block) continue;
    throw Error(
        Code::not_supported,
        fmt::format("rank {} is on host {}, not {}: hosts must hold blocks of {} ranks; have "
                    "the launcher place them so (srun --distribution=block)",
                    rank, host_of(rank), rank / block, block));
  }
  return block;
}

const Nic* Topology::nic(int rank) const {
  const Worker& w = worker(rank);
  return w.nic < 0 ? nullptr : &machine(w.host).nics[static_cast<std::size_t>(w.nic)];
}

Distance Topology::distance(int a, int b) const {
  if (a == b) return Distance::same;
  if (host_of(a) != host_of(b)) return Distance::network;
  const bool known = core(a).number >= 0;
  if (known && core(a).number == core(b).number) return Distance::same;
  return slip::distance(core(a).place, core(b).place);
}

Topology topology_in_blocks(int workers, int workers_per_host,
                            const std::vector<std::shared_ptr<const Machine>>& machines) {
  if (workers < 1 || workers_per_host < 1) {
    throw Error(Code::invalid_argument,
                fmt::format("{} workers in blocks of {} per host", workers, workers_per_host));
  }
  const int hosts = (workers + workers_per_host - 1) / workers_per_host;
  const auto count = static_cast<std::size_t>(hosts);
  if (machines.size() > 1 && machines.size() != count) {
    throw Error(Code::invalid_argument,
                fmt::format("{} machines for {} hosts; allowed are one for each, or one for all",
                            machines.size(), hosts));
  }
  std::vector<std::shared_ptr<const Machine>> all = machines;
  if (all.empty()) all.push_back(std::make_shared<const Machine>());
  all.resize(count, all.front());
  std::vector<Topology::Member> members(static_cast<std::size_t>(workers));
  for (int rank = 0; rank < workers; ++rank) {
    members[static_cast<std::size_t>(rank)].host = rank / workers_per_host;
  }
  return Topology(members, std::move(all));
}

std::vector<int> heads(const Topology& topology, std::uint64_t step) {
  std::vector<int> heads;
  for (int host = 0; host < topology.hosts(); ++host) {
    const auto leaders = topology.leaders(host);
    heads.push_back(leaders[step % leaders.size()].rank);
  }
  return heads;
}

}  // namespace slip
