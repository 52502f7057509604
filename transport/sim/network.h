#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "slipstream/base/time.h"

namespace slip::sim {

/// A modelled link: a message of b bytes occupies it for b / bytes_per_second and arrives `latency`
/// after that. A rate of 0 is unlimited.
struct Link {
  double bytes_per_second = 0;
  Duration latency{0};

  bool instant() const { return bytes_per_second == 0 && latency == Duration::zero(); }
};

/// The link of one pair of hosts, in that direction; inside a host, where both are the same.
struct HostLink {
  int from;
  int to;
  Link link;
};

/// Modelled links; by default none, and delivery is instant.
struct NetworkOptions {
  /// In blocks of consecutive ranks. 0: in virtual time, and with links, each on its own; else the
  /// hosts are not modelled.
  int workers_per_host = 0;
  /// Of each host, shared by its workers in blocks of consecutive ranks.
  int nics_per_host = 1;
  Link link;                                 // between hosts
  Link inner_link;                           // inside a host
  std::vector<HostLink> links;               // of pairs that have one of their own, each once
  std::vector<std::pair<int, double>> slow;  // rank, factor: its messages take that much longer

  /// True if nothing takes any time: then a put takes effect at once.
  bool instant() const;
  /// False if messages take no time but the latency, so that none keeps another waiting.
  bool has_rates() const;
};

/// When messages arrive. Between hosts a message is sent and received by the workers' NICs, each
/// one message at a time, at the rate of the two hosts' link; inside a host a worker sends one
/// message at a time. A NIC sends in the order in which it is given messages, and receives in that
/// in which their first bytes reach it, hence two steps. Memory is linear in workers and `links`.
class Network {
 public:
  /// Throws Error(invalid_argument) for ranks and hosts that are not there, and pairs named twice.
  Network(int workers, NetworkOptions options);

  int host_of(int rank) const { return rank / options_.workers_per_host; }

  bool instant() const { return instant_; }
  bool has_rates() const { return has_rates_; }

  /// When the first byte of a message handed over now reaches its receiver.
  Time reaches(Time now, int from, int to, std::size_t bytes);
  /// And when all of it is there: to be asked in order of the time `reached`. Messages from one
  /// worker to another arrive in the order in which they were handed over.
  Time arrives(Time reached, int from, int to, std::size_t bytes);

 private:
  std::size_t nic_of(int rank) const {
    const int local = rank % options_.workers_per_host;
    return static_cast<std::size_t>(host_of(rank) * options_.nics_per_host +
                                    local * options_.nics_per_host / options_.workers_per_host);
  }
  const Link& link_between(int source, int target) const;
  double slowness(int from, int to) const;
  Duration length(int from, int to, std::size_t bytes) const;

  NetworkOptions options_;
  bool instant_;
  bool has_rates_;
  std::vector<double> slowness_;                   // per rank
  std::unordered_map<std::uint64_t, Link> links_;  // by pair of hosts
  std::vector<Time> sending_until_;                // per NIC
  std::vector<Time> receiving_until_;
  std::vector<Time> inner_until_;  // per rank
};

}  // namespace slip::sim
