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

struct NetworkOptions {
  /// In blocks of consecutive ranks. 0: in virtual time, and with links, each on its own; else the
  /// hosts are not modelled.
  int workers_per_host = 0;
  Link link;                                 // between hosts
  Link inner_link;                           // inside a host
  std::vector<HostLink> links;               // of pairs that have one of their own, each once
  std::vector<std::pair<int, double>> slow;  // rank, factor: its messages take that much longer

  /// True if nothing takes any time: then a put takes effect at once.
  bool instant() const;
};

/// When messages arrive. Between hosts a message is sent and received by the hosts' NICs, each one
/// message at a time, at the rate of the two hosts' link; inside a host a worker sends one message
/// at a time. Memory is linear in workers and `links`.
class Network {
 public:
  /// Throws Error(invalid_argument) for ranks and hosts that are not there, and pairs named twice.
  Network(int workers, NetworkOptions options);

  int host_of(int rank) const { return rank / options_.workers_per_host; }

  bool instant() const { return instant_; }

  /// The arrival of a message handed over now. Messages from one worker to another arrive in the
  /// order in which they were handed over.
  Time arrival(Time now, int from, int to, std::size_t bytes);

 private:
  const Link& link_between(int source, int target) const;

  NetworkOptions options_;
  bool instant_;
  std::vector<double> slowness_;                   // per rank
  std::unordered_map<std::uint64_t, Link> links_;  // by pair of hosts
  std::vector<Time> sending_until_;                // per host's NIC
  std::vector<Time> receiving_until_;
  std::vector<Time> inner_until_;  // per rank
};

}  // namespace slip::sim
