#include "slipstream/tools/slip/info.h"

#include <fmt/format.h>

#include <optional>
#include <string>

#include "slipstream/kernels/kernels.h"
#include "slipstream/tools/slip/machine.h"
#include "slipstream/trainer/table.h"
#include "slipstream/version.h"

namespace slip::cli {
namespace {

std::string describe(const std::optional<Machine::Space>& space) {
  if (!space) return "unknown";
  return fmt::format("{}, {} available", format_bytes(space->bytes),
                     format_bytes(space->available));
}

std::string machine_text(const Machine& machine) {
  std::string text = "Machine\n";
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("  {:<15} {}\n", name, value);
  };
  line("cores", fmt::format("{} usable of {}", machine.cores, machine.cores_installed));
  line("NUMA nodes", fmt::format("{}", machine.numa_nodes));
  line("memory", describe(machine.memory));
  line("/dev/shm", describe(machine.shared_memory));
  line("locked memory",
       machine.memlock ? "at most " + format_bytes(*machine.memlock) : "unlimited");
  line("open files", fmt::format("at most {}", machine.open_files));
  line("membarrier", machine.membarrier ? "yes" : "no: writers fence, and sleeping costs more");
  return text;
}

std::string build_text() {
  return fmt::format("Build\n  {:<15} {}\n  {:<15} {}\n  {:<15} {}\n  {:<15} {}\n", "version",
                     slip::version, "compiler", SLIP_COMPILER, "kernels", kernels::target_name(),
                     "LibTorch", SLIP_HAVE_TORCH ? "yes" : "no: slip train has the toy tasks only");
}

std::string transports_text() {
  const char* not_built = "absent: not built in";
  return fmt::format(
      "Transports\n  {:<15} {}\n  {:<15} {}\n  {:<15} {}\n  {:<15} {}\n  {:<15} {}\n  {:<15} {}\n",
      "shm", "available: processes of one host, memory files", "threads",
      "available: threads of one process", "sim", "available: virtual time in one process", "ucx",
      not_built, "verbs", not_built, "cuda_ipc", not_built);
}

std::string paths_text(int workers) {
  constexpr int all_shown = 8;
  if (workers > all_shown) {
    return fmt::format("Paths\n  each of the {} pairs of workers: shm, same host\n",
                       workers * (workers - 1LL));
  }
  Table table{{"from", "to", "path", "why"}, {}};
  for (int from = 0; from < workers; ++from) {
    for (int to = 0; to < workers; ++to) {
      if (from == to) continue;
      table.rows.push_back({fmt::format("{}", from), fmt::format("{}", to), "shm", "same host"});
    }
  }
  return fmt::format("Paths of {} local workers\n{}", workers, to_text(table));
}

class Info final : public Command {
 public:
  Info()
      : Command("info", "shows transports, the machine, and which path each pair of workers takes",
                "slip info --workers 4") {
    options_.section("Options").add("workers", workers_, "local workers whose paths are shown",
                                    Range::between(1, 65536));
    add_common_options();
  }

  int run() override {
    fmt::print("{}\n{}\n{}\n{}", build_text(), machine_text(this_machine()), transports_text(),
               paths_text(workers_));
    return done;
  }

 private:
  int workers_ = 2;
};

}  // namespace

std::unique_ptr<Command> make_info_command() { return std::make_unique<Info>(); }

}  // namespace slip::cli
