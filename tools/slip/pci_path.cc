#include "slipstream/tools/slip/pci_path.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <system_error>
#include <vector>

namespace slip::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t conventional_bytes = 256;  // of a configuration space; behind, PCI Express's
constexpr std::size_t express_bytes = 4096;

/// The bridges above a device, from the root; itself not. Empty where it is not known.
std::vector<fs::path> bridges_above(const fs::path& link) {
  std::error_code error;
  const fs::path device = fs::canonical(link, error);
  std::vector<fs::path> bridges;
  fs::path at;
  if (error) return bridges;
  for (const fs::path& part : device.parent_path()) {
    at /= part;
    // "0000:12:00.0"; the root above is "pci0000:10".
    const std::string& name = part.native();
    if (name.find(':') < name.rfind('.') && name.rfind('.') != name.npos) bridges.push_back(at);
  }
  return bridges;
}

Acs acs_of(const fs::path& bridge) {
  std::ifstream in(bridge / "config", std::ios::binary);
  std::vector<char> config(express_bytes);
  in.read(config.data(), static_cast<std::streamsize>(config.size()));
  config.resize(static_cast<std::size_t>(in.gcount()));
  return cli::acs_of(std::as_bytes(std::span(config)));
}

}  // namespace

Acs acs_of(std::span<const std::byte> config) {
  constexpr std::uint32_t acs = 0x000d;
  constexpr std::uint32_t redirecting =
      1U << 2 | 1U << 3 | 1U << 5;  // requests, completions; egress
  constexpr std::size_t capability_bytes = 8;
  if (config.size() < conventional_bytes) return Acs::unknown;
  const auto word = [&](std::size_t at) {  // little endian
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i)
      value |= std::to_integer<std::uint32_t>(config[at + i]) << 8 * i;
    return value;
  };
  std::size_t at = conventional_bytes;
  for (std::size_t seen = 0; seen < express_bytes / capability_bytes; ++seen) {
    if (at < conventional_bytes || at + capability_bytes > config.size()) return Acs::absent;
    const std::uint32_t header = word(at);  // which it is, its version, where the next one is
    if (header == ~std::uint32_t{0}) return Acs::unknown;  // the bridge does not answer
    if ((header & 0xffff) == acs) {
      return (word(at + 4) >> 16 & redirecting) != 0 ? Acs::redirects : Acs::passes;
    }
    at = header >> 20 & 0xffc;
  }
  return Acs::unknown;  // it goes round in circles
}

std::string acs_between(const fs::path& sys, const std::string& gpu, const std::string& nic) {
  const std::vector<fs::path> to_gpu = bridges_above(sys / "bus/pci/devices" / gpu);
  std::vector<fs::path> to_nic = bridges_above(sys / "class/infiniband" / nic / "device");
  if (to_nic.empty()) to_nic = bridges_above(sys / "class/net" / nic / "device");
  const auto [gpus, nics] = std::ranges::mismatch(to_gpu, to_nic);
  if (gpus == to_gpu.begin()) return "";
  std::vector<fs::path> between(gpus, to_gpu.end());
  between.insert(between.end(), nics, to_nic.end());
  std::vector<std::string> redirecting;
  bool is_known = true;
  for (const fs::path& bridge : between) {
    const Acs found = acs_of(bridge);
    if (found == Acs::redirects) redirecting.push_back(bridge.filename());
    is_known = is_known && found != Acs::unknown;
  }
  if (!redirecting.empty()) {
    return fmt::format(
        "ACS of {} sends what they exchange by way of the root complex: turn it off "
        "in the BIOS or by 'setpci -s ADDRESS ECAP_ACS+6.w=0'",
        fmt::join(redirecting, ", "));
  }
  return is_known ? "no ACS in the way" : "ACS between them unknown: run as root";
}

}  // namespace slip::cli
