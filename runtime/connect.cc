#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/runtime/local_bootstrap.h"
#include "slipstream/runtime/tcp_bootstrap.h"
#include "slipstream/runtime/world.h"
#include "slipstream/runtime/world_internal.h"
#include "slipstream/transport/paced_transport.h"
#include "slipstream/transport/shm/segment.h"
#include "slipstream/transport/shm/shm_transport.h"

namespace slip {
namespace {

/// Of everything that workers tell each other. Raised when any of it changes.
constexpr int wire_version = 2;

/// Tells this worker when a peer's process ends before it has said goodbye. A process descriptor
/// cannot be confused with a later process of the same number.
void watch_peer(World::Parts& parts, int peer, long pid) {
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0 && errno != ESRCH) throw_errno(fmt::format("cannot watch rank {}", peer));
  if (fd < 0) {
    throw Error(Code::peer_lost, fmt::format("rank {} (process {}) has ended", peer, pid), peer);
  }
  const std::shared_ptr<int> owned(new int(fd), [](const int* f) {
    close(*f);
    delete f;
  });
  parts.watches.push_back(
      parts.progress->watch(fd, [owned, peer, pid, rank = parts.bootstrap->rank(),
                                 abort = parts.abort, waiter = parts.waiter] {
        abort->abort({Code::peer_lost,
                      fmt::format("rank {}: lost rank {} (process {} has ended)", rank, peer, pid),
                      peer});
        waiter->wake();
      }));
}

/// Every worker says who and where it is, and checks what the others say. Returns where all are.
std::vector<Topology::Member> introduce(World::Parts& parts) {
  Bootstrap& bootstrap = *parts.bootstrap;
  const int rank = bootstrap.rank();
  std::vector<Topology::Member> members;
  bootstrap.put(fmt::format("hello/{}", rank),
                fmt::format("{} {} {} {}", wire_version, getpid(), shm::host_identity(),
                            format_cpus(allowed_cpus())));
  for (int peer = 0; peer < bootstrap.size(); ++peer) {
    const std::string hello =
        bootstrap.get(fmt::format("hello/{}", peer), parts.options.join_timeout);
    int version = 0;
    long pid = 0;
    unsigned long long host = 0;
    int read = 0;
    const bool complete =
        std::sscanf(hello.c_str(), "%d %ld %llu %n", &version, &pid, &host, &read) == 3 && pid > 0;
    auto cpus = parse_cpus(std::string_view(hello).substr(static_cast<std::size_t>(read)));
    if (!complete || (version == wire_version && !cpus)) {
      throw Error(Code::bad_data, fmt::format("rank {} introduces itself as '{}'", peer, hello),
                  peer);
    }
    if (version != wire_version) {
      throw Error(Code::peer_mismatch,
                  fmt::format("rank {} speaks wire version {} and rank {} version {}: install the "
                              "same Slipstream everywhere",
                              peer, version, rank, wire_version),
                  peer);
    }
    if (host != shm::host_identity()) {
      throw Error(Code::not_supported,
                  fmt::format("rank {} is on another host than rank {}; this build reaches workers "
                              "of one host only (shared memory)",
                              peer, rank),
                  peer);
    }
    if (peer != rank) watch_peer(parts, peer, pid);
    members.push_back({0, std::move(*cpus)});
  }
  return members;
}

void pace(World::Parts& parts) {
  const sim::NetworkOptions& options = parts.options.network;
  if (options.instant()) return;
  auto network = std::make_shared<PacedNetwork>(parts.bootstrap->size(), options);
  parts.observer = parts.transport.get();
  parts.transport =
      std::make_unique<PacedTransport>(std::move(parts.transport), std::move(network),
                                       parts.bootstrap->rank(), [w = parts.waiter] { w->wake(); });
}

}  // namespace

std::unique_ptr<World::Parts> connect_parts(const WorldOptions& options) {
  auto parts = std::make_unique<World::Parts>();
  parts->options = options;
  parts->clock = std::make_shared<RealClock>();
  parts->abort = std::make_shared<AbortToken>();
  const auto tcp = tcp_options_from_environment();
  auto transport = std::make_unique<ShmTransport>("shm");
  parts->waiter = std::make_shared<RealWaiter>(transport->doorbell(), parts->clock, parts->abort,
                                               options.max_spin);
  parts->transport = std::move(transport);
  if (tcp) {
    auto join = *tcp;
    join.timeout = options.join_timeout;
    parts->bootstrap = std::make_unique<TcpBootstrap>(join);
    parts->progress = progress_thread();
    const auto members = std::make_shared<const std::vector<Topology::Member>>(introduce(*parts));
    parts->real_topology = std::make_shared<LazyTopology>(
        [members](int rank) { return members->at(static_cast<std::size_t>(rank)).host; },
        [members, &bootstrap = *parts->bootstrap, options] {
          return gather_topology(bootstrap, *members, options.join_timeout);
        });
  } else {
    parts->bootstrap = std::make_unique<LocalBootstrap>(std::make_shared<LocalStore>(1), 0,
                                                        *parts->waiter, *parts->clock);
    parts->real_topology = local_topology(1);
  }
  parts->topology = modelled_or(parts->real_topology, parts->bootstrap->size(), options);
  pace(*parts);
  parts->counters = make_counters(parts->bootstrap->rank());
  return parts;
}

World World::connect(const WorldOptions& options) { return World(connect_parts(options)); }

}  // namespace slip
