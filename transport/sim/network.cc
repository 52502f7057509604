#include "slipstream/transport/sim/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "slipstream/base/error.h"

namespace slip::sim {

namespace {

std::uint64_t pair_of(int source, int target) {
  return (static_cast<std::uint64_t>(source) << 32) | static_cast<std::uint32_t>(target);
}

}  // namespace

bool NetworkOptions::instant() const {
  return link.instant() && inner_link.instant() &&
         std::all_of(links.begin(), links.end(),
                     [](const HostLink& pair) { return pair.link.instant(); });
}

bool NetworkOptions::has_rates() const {
  const auto has_rate = [](const Link& link) { return link.bytes_per_second != 0; };
  return has_rate(link) || has_rate(inner_link) ||
         std::any_of(links.begin(), links.end(),
                     [&](const HostLink& pair) { return has_rate(pair.link); });
}

Network::Network(int workers, NetworkOptions options)
    : options_(std::move(options)),
      instant_(options_.instant()),
      has_rates_(options_.has_rates()),
      slowness_(static_cast<std::size_t>(workers), 1.0) {
  options_.workers_per_host = std::max(1, options_.workers_per_host);
  options_.nics_per_host = std::max(1, options_.nics_per_host);
  for (const auto& [rank, factor] : options_.slow) {
    if (rank < 0 || rank >= workers) {
      throw Error(Code::invalid_argument,
                  fmt::format("slow link of rank {}: the ranks are 0 to {}", rank, workers - 1));
    }
    slowness_[static_cast<std::size_t>(rank)] *= factor;
  }
  const int hosts = host_of(workers - 1) + 1;
  for (const HostLink& pair : std::exchange(options_.links, {})) {
    for (const int host : {pair.from, pair.to}) {
      if (host < 0 || host >= hosts) {
        throw Error(Code::invalid_argument,
                    fmt::format("link of host {}: the hosts are 0 to {}", host, hosts - 1));
      }
    }
    if (!links_.emplace(pair_of(pair.from, pair.to), pair.link).second) {
      throw Error(Code::invalid_argument,
                  fmt::format("the link {} -> {} is given twice", pair.from, pair.to));
    }
  }
  if (instant_) return;
  const auto nics = static_cast<std::size_t>(hosts * options_.nics_per_host);
  sending_until_.resize(nics);
  receiving_until_.resize(nics);
  inner_until_.resize(static_cast<std::size_t>(workers));
}

const Link& Network::link_between(int source, int target) const {
  if (!links_.empty()) {
    const auto own = links_.find(pair_of(source, target));
    if (own != links_.end()) return own->second;
  }
  return source == target ? options_.inner_link : options_.link;
}

double Network::slowness(int from, int to) const {
  return std::max(slowness_[static_cast<std::size_t>(from)],
                  slowness_[static_cast<std::size_t>(to)]);
}

/// How long the message keeps a NIC, or its sender inside a host, from others.
Duration Network::length(int from, int to, std::size_t bytes) const {
  const double rate = link_between(host_of(from), host_of(to)).bytes_per_second;
  if (rate == 0) return Duration::zero();
  return from_seconds(static_cast<double>(bytes) / rate * slowness(from, to));
}

Time Network::reaches(Time now, int from, int to, std::size_t bytes) {
  const int source = host_of(from);
  const int target = host_of(to);
  Time& sending = source == target ? inner_until_[static_cast<std::size_t>(from)]
                                   : sending_until_[nic_of(from)];
  const Time start = std::max(now, sending);
  sending = add(start, length(from, to, bytes));
  const Duration latency = link_between(source, target).latency;
  return add(start, from_seconds(to_seconds(latency) * slowness(from, to)));
}

Time Network::arrives(Time reached, int from, int to, std::size_t bytes) {
  const Duration time = length(from, to, bytes);
  if (host_of(from) == host_of(to)) return add(reached, time);
  Time& receiving = receiving_until_[nic_of(to)];
  const Time at = add(std::max(reached, receiving), time);
  if (time > Duration::zero()) receiving = at;
  return at;
}

}  // namespace slip::sim
