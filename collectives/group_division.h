#pragma once

#include <cstdint>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/runtime/topology.h"

/// Which workers average together, as pure functions (Ripples/Prague, ASPLOS'20).
namespace slip {

/// Groups that have no worker in common, the members of each in ascending order.
using Division = std::vector<std::vector<int>>;

/// Global division (section 5): a random division into groups of `group_size` >= 2. Nobody is left
/// alone: the last group has one worker more, or down to two, where the number asks for it.
Division divide(std::vector<int> workers, int group_size, Random& random);

/// Inter-intra synchronisation (section 5), the first step of round 0, 1, ... : of the `workers` of
/// each host the one that heads() names, or if it is not among them a random one, is the head; the
/// heads are divided across hosts, the others within their host. So one worker of a host uses its
/// link.
Division inter_step(const std::vector<int>& workers, const Topology& topology, std::uint64_t round,
                    int group_size, Random& random);
/// The second step: all the `workers` of a host.
Division intra_step(const std::vector<int>& workers, const Topology& topology);

/// The static schedule (section 4): the group of `rank` in step 0, 1, ... . Steps alternate between
/// hosts and within them. Between hosts, the first worker and the next time the second of each host
/// is its head, and the heads form a group; the others pair up in their host, and where their
/// number is odd the one that follows the head is alone. Within them, all workers of a host form a
/// group. With four workers per host this is the schedule of the paper's authors.
std::vector<int> static_group(int rank, std::uint64_t step, const Topology& topology);

}  // namespace slip
