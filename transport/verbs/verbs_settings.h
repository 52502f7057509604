#pragma once

#include <optional>
#include <string>

namespace slip {

/// Which port of which RDMA device carries a worker's messages, and how. What is not given is
/// chosen.
struct VerbsSettings {
  std::string device = {};       // mlx5_0; else the nearest that has an active port
  std::optional<int> port = {};  // from 1; else the first active one
  std::optional<int> gid = {};   // index in the port's table; else RoCE v2's of an IPv4 address
  std::optional<unsigned> pkey = {};  // a partition, 0x8001; else the port's first
  std::optional<int> mtu = {};        // bytes of a packet, 256, 512, ..., 4096; else the port's
  /// How a word reaches its reader: by a completion that the receiver drives, or straight into
  /// memory that is polled, where payload and word are one write. `automatic` polls where the
  /// device promises that the bytes of a write land in order.
  enum class Words { automatic, completion, polled } words = Words::automatic;
};

/// SLIP_VERBS_DEVICE, _PORT, _GID, _PKEY, _MTU and _WORDS. Error(invalid_argument) names the one
/// that is wrong and what is allowed.
VerbsSettings verbs_settings_from_environment();

}  // namespace slip
