#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/kernels/reference.h"
#include "slipstream/runtime/launch.h"

/// What the tests of all-reduces share: vectors to average, and what workers may run on.
namespace slip::testing {

/// What `rank` brings to its operation number `round`.
template <class T>
void fill(std::span<T> vector, int rank, std::uint64_t round) {
  const std::uint64_t seed = key({static_cast<std::uint64_t>(rank), round});
  for (std::size_t i = 0; i < vector.size(); ++i) {
    vector[i] = static_cast<T>(mix(seed ^ i) >> 11) * static_cast<T>(0x1p-53) - static_cast<T>(0.5);
  }
}

template <class T>
bool same_bits(std::span<const T> a, std::span<const T> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

/// sum_i weight * vectors[i] by the specification of the arithmetic.
template <class T>
std::vector<T> weighted_sum(const std::vector<std::vector<T>>& vectors, double weight) {
  std::vector<ConstVectorView> inputs;
  for (const std::vector<T>& vector : vectors) inputs.push_back(view(std::span(vector)));
  const std::vector<double> weights(vectors.size(), weight);
  std::vector<T> sum(vectors.front().size());
  kernels::reference::weighted_average<T>(view(std::span(sum)), inputs, weights);
  return sum;
}

/// The mean of vectors, bit for bit. `hosts` is where each of them is if they are averaged
/// hierarchically, else nothing.
template <class T>
std::vector<T> mean_of(const std::vector<std::vector<T>>& vectors,
                       const std::vector<int>& hosts = {}) {
  const double weight = 1.0 / static_cast<double>(vectors.size());
  if (hosts.empty()) return weighted_sum(vectors, weight);
  std::vector<std::vector<T>> sums;
  for (std::size_t first = 0; first < hosts.size(); ++first) {
    if (std::find(hosts.begin(), hosts.end(), hosts[first]) - hosts.begin() <
        static_cast<std::ptrdiff_t>(first)) {
      continue;
    }
    std::vector<std::vector<T>> on_host;
    for (std::size_t i = first; i < hosts.size(); ++i) {
      if (hosts[i] == hosts[first]) on_host.push_back(vectors[i]);
    }
    sums.push_back(weighted_sum(on_host, weight));
  }
  return weighted_sum(sums, 1);
}

/// The hosts for `mean_of` a group.
inline std::vector<int> hosts_of(const World& world, const PartialAllReduce& partial,
                                 const Group& group) {
  std::vector<int> hosts;
  if (partial.algorithm(group) != Algorithm::hierarchical) return hosts;
  for (const int rank : group.members) hosts.push_back(world.host_of(rank));
  return hosts;
}

/// The same for all of `groups`, before workers run.
inline std::vector<std::vector<int>> hosts_of(int workers, const LaunchOptions& launched,
                                              std::size_t count, Dtype dtype,
                                              const PartialAllReduceOptions& options,
                                              const std::vector<Group>& groups) {
  LaunchOptions quiet = launched;
  quiet.faults.reset();
  quiet.crashes.clear();
  std::vector<std::vector<int>> hosts;
  const auto ask = [&](World& world) {
    const PartialAllReduce partial(world, "asked", count, dtype, options);
    if (world.rank() != 0) return;
    for (const Group& group : groups) hosts.push_back(hosts_of(world, partial, group));
  };
  launch(workers, ask, quiet);
  return hosts;
}

/// Of what the members `fill` for that round.
template <class T>
std::vector<T> expected_mean(const std::vector<int>& members, std::size_t count,
                             std::uint64_t round, const std::vector<int>& hosts = {}) {
  std::vector<std::vector<T>> vectors(members.size(), std::vector<T>(count));
  for (std::size_t i = 0; i < members.size(); ++i) fill<T>(vectors[i], members[i], round);
  return mean_of(vectors, hosts);
}

inline std::vector<int> everyone(int workers) {
  std::vector<int> ranks(static_cast<std::size_t>(workers));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

/// Enough for several chunks in every shard, and with few workers to go through all places where
/// chunks are staged more than once.
template <class T>
std::size_t large(int workers) {
  const std::size_t shard_bytes = workers <= 3 ? 2'000'000 : 300'000;
  return static_cast<std::size_t>(workers) * shard_bytes / sizeof(T) + 13;
}

/// Threads that map each other's memory, threads behind a proxy that hides the mapping, both on
/// hosts of two, and the simulator.
enum class Path {
  mapped,
  put,
  delayed,
  mapped_hosts,
  delayed_hosts,
  simulated,
  simulated_links,
  simulated_delays
};

inline std::string to_string(Path path) {
  static constexpr const char* names[] = {
      "mapped",        "put",       "delayed",         "mapped_hosts",
      "delayed_hosts", "simulated", "simulated_links", "simulated_delays"};
  return names[static_cast<int>(path)];
}

inline LaunchOptions options_of(Path path) {
  using namespace std::chrono_literals;
  LaunchOptions options;
  switch (path) {
    case Path::mapped:
      break;
    case Path::put:
      options.faults = FaultPlan{};
      break;
    case Path::mapped_hosts:
      options.world.network.workers_per_host = 2;
      break;
    case Path::delayed_hosts:
      options.world.network.workers_per_host = 2;
      [[fallthrough]];
    case Path::delayed:
      options.faults = FaultPlan{.seed = 7, .delay_probability = 0.1, .max_delay = 200us};
      break;
    case Path::simulated:
      options.kind = LaunchKind::simulated;
      break;
    case Path::simulated_links:
      options.kind = LaunchKind::simulated;
      options.world.network.workers_per_host = 2;
      options.world.network.link = {1e9, 5us};
      options.world.network.inner_link = {1e10, 1us};
      options.world.network.slow = {{0, 4.0}};
      break;
    case Path::simulated_delays:
      options.kind = LaunchKind::simulated;
      options.faults = FaultPlan{.seed = 11, .delay_probability = 0.3, .max_delay = 1ms};
      break;
  }
  return options;
}

}  // namespace slip::testing
