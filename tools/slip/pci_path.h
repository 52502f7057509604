#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace slip::cli {

/// What a PCI bridge does with what a device under it sends to another: Access Control Services of
/// the PCI Express specification.
enum class Acs {
  absent,     // it has none: the shortest way
  passes,     // the shortest way
  redirects,  // by way of the root complex, or not at all
  unknown,    // only root may read it
};

/// Of a bridge's configuration space, as sysfs has it: 4096 bytes for root, fewer for others.
Acs acs_of(std::span<const std::byte> config);

/// What stands between a GPU and a NIC that are under one bridge, as `slip info` says it; "" where
/// they are under none, or not known. `gpu` is an address on the PCI bus, `nic` an RDMA device or a
/// network interface, `sys` is /sys.
std::string acs_between(const std::filesystem::path& sys, const std::string& gpu,
                        const std::string& nic);

}  // namespace slip::cli
