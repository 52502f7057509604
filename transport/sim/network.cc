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

Network::Network(int workers, NetworkOptions options)
    : options_(std::move(options)),
      instant_(options_.instant()),
      slowness_(static_cast<std::size_t>(workers), 1.0) {
  options_.workers_per_host = std::max(1, options_.workers_per_host);
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
  sending_until_.resize(static_cast<std::size_t>(hosts));
  receiving_until_.resize(static_cast<std::size_t>(hosts));
  inner_until_.resize(static_cast<std::size_t>(workers));
}

const Link& Network::link_between(int source, int target) const {
  if (!links_.empty()) {
    const auto own = links_.find(pair_of(source, target));
    if (own != links_.end()) return own->second;
  }
  return source == target ? options_.inner_link : options_.link;
}

Time Network::arrival(Time now, int from, int to, std::size_t bytes) {
  const int source = host_of(from);
  const int target = host_of(to);
  const Link& link = link_between(source, target);
  const double slowness =
      std::max(slowness_[static_cast<std::size_t>(from)], slowness_[static_cast<std::size_t>(to)]);
  const Duration occupied =
      link.bytes_per_second > 0
          ? from_seconds(static_cast<double>(bytes) / link.bytes_per_second * slowness)
          : Duration::zero();
  const Duration latency = from_seconds(to_seconds(link.latency) * slowness);
  if (source == target) {
    Time& until = inner_until_[static_cast<std::size_t>(from)];
    until = add(std::max(now, until), occupied);
    return add(until, latency);
  }
  // The first byte reaches the receiver's NIC one latency after it left; the message is there when
  // both NICs have been through with all of it.
  Time& sending = sending_until_[static_cast<std::size_t>(source)];
  const Time start = std::max(now, sending);
  sending = add(start, occupied);
  Time& receiving = receiving_until_[static_cast<std::size_t>(target)];
  receiving = add(std::max(add(start, latency), receiving), occupied);
  return receiving;
}

}  // namespace slip::sim
