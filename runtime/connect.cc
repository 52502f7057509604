#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/rdma.h"
#include "slipstream/runtime/launcher.h"
#include "slipstream/runtime/local_bootstrap.h"
#include "slipstream/runtime/world.h"
#include "slipstream/runtime/world_internal.h"
#include "slipstream/transport/cuda_ipc/cuda_ipc_transport.h"
#include "slipstream/transport/mixed_transport.h"
#include "slipstream/transport/paced_transport.h"
#include "slipstream/transport/shm/segment.h"
#include "slipstream/transport/shm/shm_transport.h"
#include "slipstream/transport/staged_transport.h"
#include "slipstream/transport/ucx/ucx_transport.h"
#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip {
namespace {

/// Of everything that workers tell each other. Raised when any of it changes.
constexpr int wire_version = 6;

/// What a worker says of itself when it joins.
struct Introduction {
  long pid = 0;
  std::uint64_t host = 0;
  std::vector<int> cpus;
};

/// Tells this worker when a peer's process ends before it has said goodbye. A process descriptor
/// cannot be confused with a later process of the same number.
void watch_process(World::Parts& parts, int peer, long pid) {
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

/// While it is there, the peers that the transport loses end this worker's waits.
class ConnectionWatch final : public Progress::Handle {
 public:
  ConnectionWatch(NetworkTransport& transport, const World::Parts& parts) : transport_(transport) {
    transport.on_lost([abort = parts.abort, waiter = parts.waiter](const Status& why) {
      abort->abort(why);
      waiter->wake();
    });
  }
  ~ConnectionWatch() override { transport_.on_lost(nullptr); }

 private:
  NetworkTransport& transport_;
};

/// Every worker says who and where it is, and checks what the others say.
std::vector<Introduction> introduce(Bootstrap& bootstrap, const WorldOptions& options) {
  const int rank = bootstrap.rank();
  std::vector<Introduction> all;
  const std::vector<std::string> hellos = bootstrap.all_gather(
      "hello",
      fmt::format("{} {} {} {} {}", wire_version, getpid(), shm::host_identity(), options.transport,
                  format_cpus(allowed_cpus())),
      options.join_timeout);
  for (int peer = 0; peer < bootstrap.size(); ++peer) {
    const std::string& hello = hellos[static_cast<std::size_t>(peer)];
    int version = 0;
    long pid = 0;
    unsigned long long host = 0;
    char transport[16] = "";
    int read = 0;
    const bool complete = std::sscanf(hello.c_str(), "%d %ld %llu %15s %n", &version, &pid, &host,
                                      transport, &read) == 4 &&
                          pid > 0;
    auto cpus = parse_cpus(std::string_view(hello).substr(static_cast<std::size_t>(read)));
    if (version != wire_version && version > 0) {
      throw Error(Code::peer_mismatch,
                  fmt::format("rank {} speaks wire version {} and rank {} version {}: install the "
                              "same Slipstream everywhere",
                              peer, version, rank, wire_version),
                  peer);
    }
    if (!complete || !cpus) {
      throw Error(Code::bad_data, fmt::format("rank {} introduces itself as '{}'", peer, hello),
                  peer);
    }
    if (transport != options.transport) {
      throw Error(Code::peer_mismatch,
                  fmt::format("rank {} takes transport {} and rank {} takes {}: give all the same",
                              peer, transport, rank, options.transport),
                  peer);
    }
    all.push_back({pid, host, std::move(*cpus)});
  }
  return all;
}

/// Hosts by number, in order of first appearance.
std::vector<Topology::Member> members_of(const std::vector<Introduction>& all) {
  std::vector<std::uint64_t> hosts;
  std::vector<Topology::Member> members;
  for (const Introduction& one : all) {
    const auto at = std::find(hosts.begin(), hosts.end(), one.host);
    members.push_back({static_cast<int>(at - hosts.begin()), one.cpus});
    if (at == hosts.end()) hosts.push_back(one.host);
  }
  return members;
}

VerbsSettings settings_of(const WorldOptions& options) {
  return options.verbs ? *options.verbs : verbs_settings_from_environment();
}

/// What `transport` auto takes between hosts: verbs, if all have an RDMA device on one kind of
/// link, else ucx.
World::Path choose_network(Bootstrap& bootstrap, const WorldOptions& options) {
  const VerbsStatus here = verbs_status(settings_of(options));
  const auto links = bootstrap.all_gather("rdma", here.unusable.empty() ? here.link : "none",
                                          options.join_timeout);
  const auto without = std::find(links.begin(), links.end(), "none");
  if (without != links.end()) {
    return {"ucx", fmt::format("rank {} has no RDMA device to use", without - links.begin())};
  }
  const auto other = std::find_if(links.begin(), links.end(),
                                  [&](const std::string& link) { return link != links[0]; });
  if (other != links.end()) {
    return {"ucx", fmt::format("rank 0 has a device on {} and rank {} on {}", links[0],
                               other - links.begin(), *other)};
  }
  return {"verbs", fmt::format("all have an RDMA device on {}", links[0])};
}

/// Of the worker's GPU, else as `Topology` shares this host's rails among its workers; "" where
/// none is known.
std::string nearest_rail(const std::vector<Introduction>& all, int rank, int device) {
  const auto machine = std::make_shared<const Machine>(read_machine());
  if (device != gpu::host) {
    const Gpu* const gpu = machine->gpu(gpu::pci_address(device));
    const Nic* const nic = gpu != nullptr ? machine->rail_of(*gpu) : nullptr;
    if (nic != nullptr) return nic->name;
  }
  std::vector<Topology::Member> here;
  int index = 0;
  for (std::size_t peer = 0; peer < all.size(); ++peer) {
    if (all[peer].host != shm::host_identity()) continue;
    if (peer == static_cast<std::size_t>(rank)) index = static_cast<int>(here.size());
    here.push_back({0, all[peer].cpus});
  }
  if (here.empty()) here.push_back({0, allowed_cpus()});
  const Topology topology(here, {machine});
  const Nic* const nic = topology.nic(index);
  return nic != nullptr ? nic->name : "";
}

std::unique_ptr<NetworkTransport> make_network(const World::Parts& parts, const std::string& name,
                                               std::shared_ptr<Doorbell> doorbell,
                                               const std::vector<Introduction>& all) {
  const WorldOptions& options = parts.options;
  const int rank = parts.bootstrap ? parts.bootstrap->rank() : 0;
  if (name == "ucx") {
    return make_ucx_transport({rank, options.peer_timeout, options.join_timeout, doorbell});
  }
  VerbsOptions verbs;
  verbs.rank = rank;
  verbs.workers = parts.bootstrap ? parts.bootstrap->size() : 1;
  verbs.peer_timeout = options.peer_timeout;
  verbs.connect_timeout = options.join_timeout;
  verbs.doorbell = std::move(doorbell);
  verbs.settings = settings_of(options);
  verbs.nearest = [&all, rank, device = options.device] { return nearest_rail(all, rank, device); };
  return make_verbs_transport(std::move(verbs));
}

/// The transport, and the doorbell that it rings. `all` is empty for a world of one.
void choose_transport(World::Parts& parts, const std::vector<Introduction>& all) {
  const WorldOptions& options = parts.options;
  const auto far = std::find_if(all.begin(), all.end(), [](const Introduction& one) {
    return one.host != shm::host_identity();
  });
  const bool takes_gpus = options.transport == "cuda_ipc" || options.transport == "auto";
  const bool takes_shm = options.transport == "shm" || takes_gpus;
  if (!takes_shm && options.transport != "ucx" && options.transport != "verbs") {
    throw Error(Code::invalid_argument,
                fmt::format("transport is '{}'; allowed are auto, shm, cuda_ipc, ucx, verbs",
                            options.transport));
  }
  if (takes_shm && options.transport != "auto" && far != all.end()) {
    const auto peer = static_cast<int>(far - all.begin());
    throw Error(Code::not_supported,
                fmt::format("rank {} is on another host than rank {}, which shared memory does not "
                            "reach; choose transport auto, ucx or verbs",
                            peer, parts.bootstrap->rank()),
                peer);
  }
  parts.near = parts.far = {options.transport, "asked for"};
  if (takes_shm) parts.near = {"shm", "same host"};
  if (takes_shm && far != all.end()) parts.far = choose_network(*parts.bootstrap, options);
  NetworkTransport* network = nullptr;
  std::shared_ptr<Doorbell> doorbell;
  if (options.transport == "cuda_ipc") gpu::usable().throw_if_failed();
  if (takes_shm) {
    const std::string name = options.transport == "auto" ? "shm" : options.transport;
    std::unique_ptr<ShmTransport> shm;
    if (takes_gpus) {
      shm = std::make_unique<CudaIpcTransport>(name,
                                               options.transport == "auto"
                                                   ? CudaIpcTransport::WithoutIpc::on_host
                                                   : CudaIpcTransport::WithoutIpc::refused,
                                               parts.stream_limits());
    } else {
      shm = std::make_unique<ShmTransport>(name);
    }
    doorbell = shm->doorbell();
    parts.transport = std::move(shm);
  }
  if (!takes_shm || far != all.end()) {
    auto made = std::make_unique<StagedTransport>(
        make_network(parts, parts.far.transport, doorbell, all), parts.stream_limits());
    network = made.get();
    doorbell = network->doorbell();
    if (takes_shm) {
      parts.transport = std::make_unique<MixedTransport>(
          std::move(parts.transport), std::move(made), [all](int peer) {
            return all.at(static_cast<std::size_t>(peer)).host == shm::host_identity();
          });
    } else {
      parts.transport = std::move(made);
    }
  }
  parts.waiter = std::make_shared<RealWaiter>(doorbell, parts.clock, parts.abort, options.max_spin,
                                              network != nullptr ? parts.transport.get() : nullptr);
  if (network == nullptr) return;
  parts.progress = progress_thread();
  parts.driving = parts.progress->serve(*parts.transport, [] { return false; });
  parts.watches.push_back(std::make_unique<ConnectionWatch>(*network, parts));
}

void pace(World::Parts& parts) {
  const sim::NetworkOptions& options = parts.options.network;
  if (options.instant()) return;
  if (!parts.transport->copies_at_post()) {
    throw Error(Code::not_supported,
                fmt::format("modelled links are for workers of one host; choose transport shm, not "
                            "{}",
                            parts.transport->name()));
  }
  auto network = std::make_shared<PacedNetwork>(parts.bootstrap->size(), options);
  parts.observer = parts.transport.get();
  parts.transport =
      std::make_unique<PacedTransport>(std::move(parts.transport), std::move(network),
                                       parts.bootstrap->rank(), [w = parts.waiter] { w->wake(); });
}

/// A world of one without a bootstrap.
std::unique_ptr<World::Parts> connect_parts(std::shared_ptr<Launcher> launcher,
                                            std::unique_ptr<Bootstrap> bootstrap,
                                            const WorldOptions& options) {
  auto parts = std::make_unique<World::Parts>();
  parts->options = options;
  parts->clock = std::make_shared<RealClock>();
  parts->abort = std::make_shared<AbortToken>();
  parts->launcher = std::move(launcher);
  parts->bootstrap = std::move(bootstrap);
  std::vector<Introduction> all;
  if (parts->bootstrap) all = introduce(*parts->bootstrap, options);
  choose_transport(*parts, all);
  if (parts->bootstrap) {
    parts->progress = progress_thread();
    for (int peer = 0; peer < parts->bootstrap->size(); ++peer) {
      const Introduction& one = all[static_cast<std::size_t>(peer)];
      const bool is_near = one.host == shm::host_identity();
      if (is_near && peer != parts->bootstrap->rank()) watch_process(*parts, peer, one.pid);
    }
    const auto members = std::make_shared<const std::vector<Topology::Member>>(members_of(all));
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

}  // namespace

std::unique_ptr<World::Parts> connect_parts(const WorldOptions& given) {
  WorldOptions options = given;
  options.join_timeout = join_timeout(given.join_timeout);
  auto launcher = find_launcher();
  auto bootstrap = launcher ? launcher->join(options.join_timeout) : nullptr;
  return connect_parts(std::move(launcher), std::move(bootstrap), options);
}

World World::connect(const WorldOptions& options) { return World(connect_parts(options)); }

World World::connect(std::unique_ptr<Bootstrap> bootstrap, const WorldOptions& options) {
  return World(connect_parts(nullptr, std::move(bootstrap), options));
}

}  // namespace slip
