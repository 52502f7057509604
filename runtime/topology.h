#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "slipstream/runtime/machine.h"

namespace slip {

/// Where the workers of a world are: on which hosts, on which cores, next to which NICs. Immutable,
/// so any thread may read it. Memory and construction are linear in workers, the latter times the
/// NICs of a host; queries cost nothing.
class Topology {
 public:
  /// What a topology is made from: one worker.
  struct Member {
    int host = 0;                // 0, 1, ...; by first appearance
    std::vector<int> cpus = {};  // that the worker may use; empty: all of its host's
  };
  /// The worker that speaks for its host through one of its rails.
  struct Leader {
    int rank = 0;
    int nic = -1;  // index into the machine's; -1: none is known
  };

  /// `machines` are those of the hosts, which may share one. Throws Error(invalid_argument).
  Topology(const std::vector<Member>& members,
           std::vector<std::shared_ptr<const Machine>> machines);

  int size() const { return static_cast<int>(workers_.size()); }
  int hosts() const { return static_cast<int>(machines_.size()); }
  int host_of(int rank) const { return worker(rank).host; }
  /// In ascending order; never empty.
  std::span<const int> workers_of(int host) const { return part(ranks_, first_rank_, host); }
  const Machine& machine(int host) const { return *machines_[static_cast<std::size_t>(host)]; }

  /// p, if hosts hold p consecutive ranks each, the last one maybe fewer; else
  /// Error(not_supported).
  int workers_per_host() const;

  /// The core for `rank`. The workers that may use the same CPUs of a host are spread over its
  /// cores in blocks of consecutive ranks, so over packages and NUMA nodes, too, and neighbours by
  /// rank stay near each other. Without CPUs where it is not known.
  const Core& core(int rank) const { return worker(rank).core; }
  /// The rail for `rank`: the nearest to its core. Workers that have the same choice share them in
  /// the same manner. Null where none is known.
  const Nic* nic(int rank) const;

  /// Of each rail of the host, in the machine's order; the lowest rank where none is known. The
  /// leader of a rail is a worker nearest to it. Rails that have the same choice share these
  /// workers in rank order, so that one leads two only where rails outnumber them.
  std::span<const Leader> leaders(int host) const { return part(leaders_, first_leader_, host); }

  /// Between two workers: same for a core that they share, numa_node, package, host, or network.
  Distance distance(int a, int b) const;

 private:
  struct Worker {
    int host = 0;
    int nic = -1;
    Core core;
  };

  using Nearest = std::pair<Distance, std::vector<int>>;  // how near, and which ranks

  const Worker& worker(int rank) const { return workers_[static_cast<std::size_t>(rank)]; }
  template <class T>
  static std::span<const T> part(const std::vector<T>& all, const std::vector<std::size_t>& first,
                                 int host) {
    const auto h = static_cast<std::size_t>(host);
    return {all.data() + first[h], all.data() + first[h + 1]};
  }
  void list_hosts();
  void assign_cores(const std::vector<Member>& members);
  void assign_nics();
  void choose_leaders();
  Nearest nearest_to(const Nic& nic, int host) const;

  std::vector<Worker> workers_;
  std::vector<std::shared_ptr<const Machine>> machines_;
  // Compressed sparse rows by host.
  std::vector<int> ranks_;
  std::vector<std::size_t> first_rank_;
  std::vector<Leader> leaders_;
  std::vector<std::size_t> first_leader_;
};

/// Hosts in blocks of consecutive ranks, as they are modelled: with `machines`, one for each or one
/// for all, or without knowing any. Throws Error(invalid_argument).
Topology topology_in_blocks(int workers, int workers_per_host,
                            const std::vector<std::shared_ptr<const Machine>>& machines = {});

/// The head of each host in step 0, 1, ... of inter-intra synchronisation (Ripples/Prague,
/// ASPLOS'20, section 5): the one of its workers that averages between hosts. The leaders of its
/// rails take turns, so all rails are used in turn, and each by a worker near it.
std::vector<int> heads(const Topology& topology, std::uint64_t step);

}  // namespace slip
