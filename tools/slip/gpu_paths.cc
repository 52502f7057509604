#include "slipstream/tools/slip/gpu_paths.h"

#include <fmt/format.h>

#include <map>

#include "slipstream/tools/slip/pci_path.h"

namespace slip::cli {
namespace {

using Work = GpuQuestion::Work;

constexpr const char* proven = "proven by a transfer between two processes";

std::string ask(Respondent& whom, Work work, int device = 0, const std::string& text = {}) {
  return whom.ask(GpuQuestion{work, device, text}.packed());
}

/// ", nearest NIC ..." of a GPU that `machine` may know; `near` becomes its name.
std::string place_of(const std::string& address, const Machine& machine, std::string* near) {
  const Gpu* const gpu = machine.gpu(address);
  if (gpu == nullptr) return "";
  const Nic* const nic = machine.rail_of(*gpu);
  if (nic == nullptr) return ", no NIC near it";
  *near = nic->name;
  const Distance far = distance(gpu->place, nic->place);
  const std::string text = fmt::format(", nearest NIC {} ({})", nic->name, to_string(far));
  if (far >= Distance::package) return text + ": on another socket, which costs bandwidth";
  const std::string acs = acs_between("/sys", address, nic->name);
  return acs.empty() ? text : text + "; " + acs;
}

}  // namespace

GpuProver::GpuProver(Duration limit)
    : owner_(
          "the process that has the memory",
          [this](const std::string& asked) { return trials_.answer(GpuQuestion::of(asked)); },
          limit),
      writer_(
          "the process that writes it",
          [this](const std::string& asked) { return trials_.answer(GpuQuestion::of(asked)); },
          limit) {}

GpuPaths GpuProver::prove(const Machine& machine) {
  GpuPaths paths;
  int devices = 0;
  try {
    devices = std::stoi(ask(owner_, Work::count));
  } catch (const Error& error) {
    paths.unusable = error.what();
  }
  std::vector<int> working;
  for (int device = 0; device < devices; ++device) {
    if (add_gpu(device, machine, &paths)) working.push_back(device);
  }
  for (const int from : working) {
    std::map<std::string, std::vector<int>> others;  // by what is said of the way to them
    for (const int to : working) {
      if (to != from) others[within_host(from, to).text].push_back(to);
    }
    for (const auto& [text, to] : others) {
      paths.lines.emplace_back(fmt::format("GPU {} to {}", from, format_cpus(to)), text);
    }
  }
  return paths;
}

/// False: processes of this host do not reach its memory, whatever the GPU that writes.
bool GpuProver::add_gpu(int device, const Machine& machine, GpuPaths* paths) {
  const std::string name = fmt::format("GPU {}", device);
  std::string near;
  try {
    const std::string address = ask(owner_, Work::address, device);
    paths->lines.emplace_back(name, fmt::format("{}, {}{}", ask(owner_, Work::name, device),
                                                address, place_of(address, machine, &near)));
  } catch (const Error& error) {
    paths->lines.emplace_back(name, error.what());
    return false;
  }
  const Way way = within_host(device, device);
  paths->lines.emplace_back("  same host", way.text);
  if (!way.name.empty()) paths->within_host = way.name;
  try {
    paths->lines.emplace_back("  other hosts", ask(owner_, Work::network, device, near));
  } catch (const Error& error) {
    paths->lines.emplace_back("  other hosts", fmt::format("none: {}", error.what()));
  }
  return !way.name.empty();
}

GpuProver::Way GpuProver::within_host(int from, int to) {
  try {
    const std::string key = ask(owner_, Work::own, to);
    ask(writer_, Work::write, from, key);
    ask(owner_, Work::check, to);
    if (from == to || ask(writer_, Work::has_access, from, std::to_string(to)) == "yes") {
      return {"cuda_ipc", fmt::format("cuda_ipc: {}", proven)};
    }
    return {"cuda_ipc",
            fmt::format("cuda_ipc by way of the host: {} (the driver has no peer access "
                        "between the two: nvidia-smi topo -p2p r)",
                        proven)};
  } catch (const Error& error) {
    if (error.code() == Code::not_supported) return on_host(from, to, error.what());
    return {"", fmt::format("none: {}; transport ucx goes by way of the host", error.what())};
  }
}

GpuProver::Way GpuProver::on_host(int from, int to, const std::string& why_not_ipc) {
  try {
    ask(owner_, Work::own_on_host, to);
    ask(writer_, Work::write_on_host, from);
    ask(owner_, Work::check, to);
    return {"way of the host", fmt::format("way of the host: {} ({})", proven, why_not_ipc)};
  } catch (const Error& error) {
    return {"", fmt::format("none: {}; transport ucx goes by way of the host", error.what())};
  }
}

}  // namespace slip::cli
