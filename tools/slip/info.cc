#include "slipstream/tools/slip/info.h"

#include <fmt/format.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/gpu/nccl.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/runtime/launcher.h"
#include "slipstream/runtime/topology.h"
#include "slipstream/runtime/world.h"
#include "slipstream/tools/slip/gpu_paths.h"
#include "slipstream/tools/slip/machine.h"
#include "slipstream/trainer/table.h"
#include "slipstream/transport/ucx/ucx_transport.h"
#include "slipstream/transport/verbs/verbs_transport.h"
#include "slipstream/version.h"

namespace slip::cli {
namespace {

std::string describe(const std::optional<Resources::Space>& space) {
  if (!space) return "unknown";
  return fmt::format("{}, {} available", format_bytes(space->bytes),
                     format_bytes(space->available));
}

std::string describe(const Place& place) {
  const auto number = [](int n) { return n < 0 ? "?" : fmt::format("{}", n); };
  return fmt::format("package {}, NUMA node {}", number(place.package), number(place.numa_node));
}

std::string describe(const Nic& nic) {
  const std::string interface = nic.interface.empty() ? "" : fmt::format(" ({})", nic.interface);
  return fmt::format("{}{}, {}{}", nic.name, interface, describe(nic.place),
                     nic.is_rail ? "" : ", not used");
}

std::string describe(const Gpu& gpu, const Machine& machine) {
  std::string text = fmt::format("{}, {}", gpu.name, describe(gpu.place));
  if (!gpu.model.empty()) text += ", " + gpu.model;
  const Nic* const nic = machine.rail_of(gpu);
  if (nic == nullptr) return text;
  return fmt::format("{}, nearest NIC {} ({})", text, nic->name,
                     to_string(distance(gpu.place, nic->place)));
}

std::string lines_of(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string text;
  for (const auto& [name, value] : entries) text += fmt::format("  {:<15} {}\n", name, value);
  return text;
}

/// `cpus`: that this process may use; empty: all.
std::string machine_text(const Machine& machine, const std::vector<int>& cpus) {
  std::vector<std::pair<std::string, std::string>> lines = {
      {"packages", fmt::format("{}", machine.packages)},
      {"NUMA nodes", fmt::format("{}", machine.numa_nodes)},
      {"cores",
       fmt::format("{} usable of {}", usable_cores(machine, cpus).size(), machine.cores.size())}};
  for (const Nic& nic : machine.nics) lines.emplace_back("NIC", describe(nic));
  for (const Gpu& gpu : machine.gpus) lines.emplace_back("GPU", describe(gpu, machine));
  return "Machine\n" + lines_of(lines);
}

std::string resources_text(const Resources& machine) {
  return "Resources\n" +
         lines_of({{"memory", describe(machine.memory)},
                   {"/dev/shm", describe(machine.shared_memory)},
                   {"locked memory",
                    machine.memlock ? "at most " + format_bytes(*machine.memlock) : "unlimited"},
                   {"open files", fmt::format("at most {}", machine.open_files)},
                   {"membarrier",
                    machine.membarrier ? "yes" : "no: writers fence, and sleeping costs more"}});
}

std::string workers_text(const Topology& topology) {
  Table table{{"worker", "core", "CPUs", "package", "NUMA node", "nearest NIC", "shares with it"},
              {}};
  const auto number = [](int n) { return n < 0 ? "?" : fmt::format("{}", n); };
  for (int rank = 0; rank < topology.size(); ++rank) {
    const Core& core = topology.core(rank);
    const Nic* nic = topology.nic(rank);
    table.rows.push_back(
        {number(rank), number(core.number), format_cpus(core.cpus), number(core.place.package),
         number(core.place.numa_node), nic != nullptr ? nic->name : "none",
         nic != nullptr ? std::string(to_string(distance(core.place, nic->place))) : ""});
  }
  return fmt::format("Workers, as --bind core places them\n{}", to_text(table));
}

std::string build_text() {
  return fmt::format("Build\n  {:<15} {}\n  {:<15} {}\n  {:<15} {}\n  {:<15} {}\n", "version",
                     slip::version, "compiler", SLIP_COMPILER, "kernels", kernels::target_name(),
                     "LibTorch",
                     SLIP_HAVE_TORCH ? "yes" : "no: slip train has no models of images");
}

std::string ucx_text() {
  if (const std::string why = ucx_unavailable(); !why.empty()) return "absent: " + why;
  std::string networks;
  for (const char* name : {"UCX_TLS", "UCX_NET_DEVICES"}) {
    if (const char* value = std::getenv(name)) networks += fmt::format(", {}={}", name, value);
  }
  return fmt::format("available: processes of any hosts, UCX {}{}", ucx_version(), networks);
}

VerbsStatus verbs_here() {
  try {
    return verbs_status(verbs_settings_from_environment());
  } catch (const Error& error) {
    return {error.what(), {}, {}};
  }
}

/// What transport auto takes to workers of other hosts, as far as it depends on this one.
std::string between_hosts_text(const VerbsStatus& verbs) {
  if (verbs.unusable.empty())
    return "verbs if all hosts have a device on " + verbs.link + ", else ucx";
  return "ucx, as verbs is absent";
}

/// Which is no transport, but has ones of its own.
std::string nccl_text(const GpuPaths& gpus) {
  if (const Status usable = gpu::nccl_usable(); !usable) return "absent: " + usable.message();
  if (!gpus.unusable.empty()) return fmt::format("NCCL {}, and no GPU", gpu::nccl_version());
  return fmt::format("available: NCCL {}, for groups that repeat, where algorithm=nccl",
                     gpu::nccl_version());
}

std::string verbs_text(const VerbsStatus& verbs) {
  if (verbs.unusable.empty()) return "available: " + verbs.description;
  const std::string name = "verbs: ";  // which the table says
  const bool is_named = verbs.unusable.starts_with(name);
  return "absent: " + verbs.unusable.substr(is_named ? name.size() : 0);
}

std::string transports_text(const GpuPaths& gpus) {
  const VerbsStatus verbs = verbs_here();
  return "Transports\n" +
         lines_of({{"shm", "available: processes of one host, memory files"},
                   {"threads", "available: threads of one process"},
                   {"sim", "available: virtual time in one process"},
                   {"ucx", ucx_text()},
                   {"verbs", verbs_text(verbs)},
                   {"cuda_ipc", gpus.unusable.empty()
                                    ? "available: processes of one host, memory of GPUs"
                                    : "absent: " + gpus.unusable},
                   {"nccl", nccl_text(gpus)},
                   {"between hosts", between_hosts_text(verbs)}});
}

/// Nothing where no GPU can be used.
std::string gpus_text(const GpuPaths& gpus) {
  return gpus.unusable.empty() ? "Memory of GPUs\n" + lines_of(gpus.lines) + "\n" : "";
}

/// Who started this process, and how its workers would meet.
std::string launcher_text() {
  std::string found = "none: slip train starts its own workers";
  try {
    if (const auto launcher = find_launcher()) {
      found = fmt::format("{}, rank {} of {}", launcher->describe(), launcher->rank(),
                          launcher->size());
    }
  } catch (const Error& error) {
    found = fmt::format("unusable: {}", error.what());
  }
  const std::string why = pmix_unavailable();
  return "Launcher (SLIP_RENDEZVOUS, else PMIx, else none)\n" +
         lines_of(
             {{"found", found},
              {"PMIx", why.empty() ? "available: srun --mpi=pmix, mpirun" : "absent: " + why}});
}

/// By a launcher that can be used: what is wrong with another one is told with all the rest.
bool workers_were_started() {
  try {
    const auto launcher = find_launcher();
    return launcher && launcher->size() > 1;
  } catch (const Error&) {
    return false;
  }
}

/// `path(from, to)` says what carries puts. Of many workers only how many pairs take which.
std::string paths_text(int workers, const std::function<World::Path(int, int)>& path) {
  constexpr int all_shown = 8;
  Table table{{"from", "to", "path", "why"}, {}};
  std::map<std::pair<std::string, std::string>, long long> pairs;
  for (int from = 0; from < workers; ++from) {
    for (int to = 0; to < workers; ++to) {
      if (from == to) continue;
      const World::Path taken = path(from, to);
      ++pairs[{taken.transport, taken.why}];
      if (workers > all_shown) continue;
      table.rows.push_back(
          {fmt::format("{}", from), fmt::format("{}", to), taken.transport, taken.why});
    }
  }
  std::string text = fmt::format("Paths of {} workers\n", workers);
  if (workers <= all_shown) return text + to_text(table);
  for (const auto& [taken, count] : pairs) {
    text += fmt::format("  {} pairs: {}, {}\n", count, taken.first, taken.second);
  }
  return text;
}

class Info final : public Command {
 public:
  Info()
      : Command("info",
                "shows the machine, transports, where workers go, and which path each pair takes",
                "slip info --workers 4") {
    options_.section("Options")
        .add("workers", workers_,
             "local workers whose cores and paths are shown, unless a launcher has started some",
             Range::between(1, 65536))
        .add("transport", transport_, {"auto", "shm", "cuda_ipc", "ucx", "verbs"},
             "what is asked for")
        .add("topology", topology_, "FILE of 'lstopo --of xml', a machine to place workers on")
        .add("timeout", timeout_, "seconds after which a trial of a GPU is given up",
             Range::between(0.1, 3600));
    add_common_options();
  }

  int run() override {
    GpuProver prover(from_seconds(timeout_));
    if (workers_were_started()) return meet(prover);
    const bool here = topology_.empty();
    const std::vector<int> cpus = here ? allowed_cpus() : std::vector<int>();
    const auto machine = std::make_shared<const Machine>(here ? read_machine() : read_file());
    const std::vector<Topology::Member> members(static_cast<std::size_t>(workers_), {0, cpus});
    const Topology topology(members, {machine});
    const GpuPaths gpus = prover.prove(here ? *machine : read_machine());
    fmt::print("{}\n{}\n{}\n{}\n{}{}\n{}\n{}", build_text(), machine_text(*machine, cpus),
               resources_text(this_machine()), transports_text(gpus), gpus_text(gpus),
               launcher_text(), workers_text(topology), paths_text(workers_, [&](int, int) {
                 if (transport_ != "auto") return World::Path{transport_, "asked for"};
                 const std::string& way = gpus.within_host;
                 return World::Path{
                     "shm", way.empty() ? "same host" : "same host; memory of GPUs by " + way};
               }));
    return done;
  }

 private:
  /// Of the workers that a launcher has started, on their hosts: rank 0 says it for all.
  int meet(GpuProver& prover) const {
    std::string workers;
    {
      WorldOptions options;
      options.transport = transport_;
      const World world = World::connect(options);
      const Topology& topology = world.topology();
      if (world.rank() != 0) return done;
      workers = fmt::format(
          "{}\n{}", workers_text(topology),
          paths_text(world.size(), [&world](int from, int to) { return world.path(from, to); }));
    }  // nobody waits for what may take long
    const GpuPaths gpus = prover.prove(read_machine());
    fmt::print("{}\n{}\n{}{}\n{}", build_text(), transports_text(gpus), gpus_text(gpus),
               launcher_text(), workers);
    return done;
  }

  Machine read_file() const {
    try {
      return read_machine(topology_);
    } catch (const Error& error) {
      throw Error(Code::invalid_argument, fmt::format("--topology: {}", error.what()));
    }
  }

  int workers_ = 2;
  std::string transport_ = "auto";
  std::string topology_;
  double timeout_ = 20;
};

}  // namespace

std::unique_ptr<Command> make_info_command() { return std::make_unique<Info>(); }

}  // namespace slip::cli
