#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "slipstream/transport/verbs/verbs_settings.h"

#pragma GCC visibility push(hidden)

namespace slip::verbs {

enum class Link : std::uint8_t { infiniband = 1, ethernet = 2 };
std::string to_string(Link link);

using GidBytes = std::array<std::uint8_t, 16>;

struct Gid {
  enum class Kind { infiniband, roce_v1, roce_v2 };
  int index = 0;  // in the port's table
  Kind kind = Kind::infiniband;
  GidBytes bytes{};
};
/// As ibv_devinfo shows it: "fe80::a:b", "::ffff:10.9.0.1".
std::string to_string(const GidBytes& gid);

/// A port of an RDMA device of this machine.
struct Port {
  std::string device;
  int number = 1;
  bool is_active = false;
  std::string state;  // "active", "down", ...
  Link link = Link::infiniband;
  std::uint16_t lid = 0;
  int mtu = 0;            // bytes
  std::vector<Gid> gids;  // without empty entries
  std::vector<std::uint16_t> pkeys;
};

/// The port that is used, and how.
struct Choice {
  std::string device;
  int port = 1;
  Link link = Link::infiniband;
  std::uint16_t lid = 0;
  Gid gid;
  bool asked_for_gid = false;
  int pkey_index = 0;
  int mtu = 0;  // bytes
};
std::string describe(const Choice& choice);

/// Error names what does not fit, and what there is. `nearest` as in VerbsOptions; may be null.
Choice choose(const std::vector<Port>& ports, const VerbsSettings& settings,
              const std::function<std::string()>& nearest);

/// Where a worker is found.
struct Place {
  Link link = Link::infiniband;
  std::uint16_t lid = 0;
  GidBytes gid{};
};
/// True if packets between the two need a global route header: on Ethernet, between subnets, and
/// where somebody has asked for a GID.
bool needs_route(const Choice& here, const Place& there);

}  // namespace slip::verbs

#pragma GCC visibility pop
