#include "slipstream/transport/sim/network.h"

#include <fmt/format.h>

#include <algorithm>

#include "slipstream/base/error.h"

namespace slip::sim {

Network::Network(int workers, NetworkOptions options)
    : options_(std::move(options)),
      instant_(options_.link.instant() && options_.inner_link.instant()),
      slowness_(static_cast<std::size_t>(workers), 1.0) {
  options_.workers_per_host = std::max(1, options_.workers_per_host);
  for (const auto& [rank, factor] : options_.slow) {
    if (rank < 0 || rank >= workers) {
      throw Error(Code::invalid_argument,
                  fmt::format("slow link of rank {}: the ranks are 0 to {}", rank, workers - 1));
    }
    slowness_[static_cast<std::size_t>(rank)] *= factor;
  }
  if (instant_) return;
  const auto hosts = static_cast<std::size_t>(host_of(workers - 1)) + 1;
  sending_until_.resize(hosts);
  receiving_until_.resize(hosts);
  inner_until_.resize(static_cast<std::size_t>(workers));
}

Time Network::arrival(Time now, int from, int to, std::size_t bytes) {
  const int source = host_of(from);
  const int target = host_of(to);
  const Link& link = source == target ? options_.inner_link : options_.link;
  const double slowness =
      std::max(slowness_[static_cast<std::size_t>(from)], slowness_[static_cast<std::size_t>(to)]);
  const Duration occupied =
      link.bytes_per_second > 0
          ? from_seconds(static_cast<double>(bytes) / link.bytes_per_second * slowness)
          : Duration::zero();
  const Duration latency = from_seconds(to_seconds(link.latency) * slowness);
  if (source == target) {
    Time& until = inner_until_[static_cast<std::size_t>(from)];
    until = std::max(now, until) + occupied;
    return until + latency;
  }
  // The first byte reaches the receiver's NIC one latency after it left; the message is there when
  // both NICs have been through with all of it.
  Time& sending = sending_until_[static_cast<std::size_t>(source)];
  const Time start = std::max(now, sending);
  sending = start + occupied;
  Time& receiving = receiving_until_[static_cast<std::size_t>(target)];
  receiving = std::max(start + latency, receiving) + occupied;
  return receiving;
}

}  // namespace slip::sim
