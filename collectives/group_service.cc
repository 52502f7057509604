#include "slipstream/collectives/group_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

namespace slip {
namespace {

/// What a worker says.
struct Request {
  enum What : std::uint64_t { wants_group, has_executed, leaves };
  std::uint64_t what;
  std::uint64_t sequence;  // has_executed: of the group
};

/// What it is told: this, and behind it the members' ranks. No members: there will be no more.
struct Announcement {
  std::uint64_t sequence;
  std::uint64_t initiator;
};

std::size_t announcement_bytes(std::size_t members) {
  return sizeof(Announcement) + members * sizeof(std::int32_t);
}

/// What a worker is told before it executes any of it: groups, and that there are no more. What it
/// says before any of it is heard: that it has executed them, wants another, leaves.
ServiceRingSizes ring_sizes(const GroupGeneratorOptions& options) {
  const std::size_t groups = GroupGenerator::most_told(options);
  const std::size_t largest = announcement_bytes(GroupGenerator::largest_group(options));
  return {.requests = ring_capacity((groups + 2) * ring_layout::record_bytes(sizeof(Request))),
          .told = ring_capacity((groups + 3) * ring_layout::record_bytes(largest))};
}

const GroupGeneratorOptions& checked(const GroupGeneratorOptions& options, const World& world) {
  if (options.workers == world.size()) return options;
  throw Error(Code::invalid_argument,
              fmt::format("a group generator for {} workers in a world of {}", options.workers,
                          world.size()));
}

}  // namespace

/// Rank 0's part: on its progress thread, but for the constructor.
class __attribute__((visibility("hidden"))) GroupService::Server {
 public:
  Server(const World& world, std::string_view name, const GroupGeneratorOptions& options,
         ServiceRings& own)
      : generator_(options),
        told_gone_(static_cast<std::size_t>(world.size())),
        desk_(world, name, ring_sizes(options), own) {
    desk_.open(
        [this](int rank, std::span<const std::byte> request) { return answer(rank, request); });
  }

 private:
  Status answer(int rank, std::span<const std::byte> message) {
    Request request{};
    if (message.size() == sizeof request) std::memcpy(&request, message.data(), sizeof request);
    told_.clear();
    Status status;
    switch (message.size() == sizeof request ? request.what : ~std::uint64_t{0}) {
      case Request::wants_group:
        status = generator_.request(rank, &told_);
        break;
      case Request::has_executed:
        status = generator_.done(rank, request.sequence, &told_);
        break;
      case Request::leaves:
        status = generator_.leave(rank);
        break;
      default:
        status = {Code::bad_data,
                  fmt::format("group service: a request of rank {} makes no sense", rank), rank};
    }
    for (const FormedGroup& formed : told_) {
      for (const int member : formed.group.members) {
        if (status) status = tell(member, formed);
      }
    }
    if (status && generator_.gone(rank) && !told_gone_[static_cast<std::size_t>(rank)]) {
      told_gone_[static_cast<std::size_t>(rank)] = true;
      status = tell(rank, {});
    }
    return status;
  }

  Status tell(int rank, const FormedGroup& formed) {
    RingSender& ring = desk_.worker(rank);
    const std::vector<int>& members = formed.group.members;
    std::byte* at = ring.claim(announcement_bytes(members.size()));
    if (at == nullptr) {
      return {Code::bad_data,
              fmt::format("group service: rank {} takes no groups out of its buffer", rank), rank};
    }
    const Announcement announcement{formed.group.sequence,
                                    static_cast<std::uint64_t>(formed.initiator)};
    std::memcpy(at, &announcement, sizeof announcement);
    at += sizeof announcement;
    for (const std::int32_t member : members) {
      std::memcpy(at, &member, sizeof member);
      at += sizeof member;
    }
    return ring.commit();
  }

  GroupGenerator generator_;
  std::vector<bool> told_gone_;    // by rank
  std::vector<FormedGroup> told_;  // by the request at hand; keeps its capacity
  ServiceDesk desk_;               // the first to go: it stops calling the rest
};

GroupService::GroupService(const World& world, std::string_view name,
                           const GroupGeneratorOptions& options, Bell bell)
    : world_(&world), rings_(world, name, ring_sizes(checked(options, world)), bell) {
  if (world.rank() == 0) server_ = std::make_unique<Server>(world, name, options, rings_);
}

GroupService::~GroupService() = default;

std::size_t GroupService::memory(const GroupGeneratorOptions& options, int rank) {
  return ServiceRings::memory(options.workers, rank, ring_sizes(options));
}

Status GroupService::take(FormedGroup* formed) {
  bool makes_sense = false;
  const auto read = [&](std::span<const std::byte> message) {
    makes_sense = parse(message, formed);
  };
  if (Status s = rings_.take(read); !s) return s;
  if (!makes_sense) {
    return {Code::bad_data,
            fmt::format("rank {}: rank 0 names a group that cannot be", world_->rank()), 0};
  }
  last_ = formed->group.sequence;
  return {};
}

bool GroupService::parse(std::span<const std::byte> message, FormedGroup* formed) const {
  Announcement announcement{};
  std::vector<int>& members = formed->group.members;
  if (message.size() < sizeof announcement || message.size() % sizeof(std::int32_t) != 0) {
    return false;
  }
  std::memcpy(&announcement, message.data(), sizeof announcement);
  message = message.subspan(sizeof announcement);
  static_assert(sizeof(int) == sizeof(std::int32_t));
  members.resize(message.size() / sizeof(std::int32_t));
  formed->group.sequence = announcement.sequence;
  if (members.empty()) return true;
  std::memcpy(members.data(), message.data(), message.size());
  const auto workers = static_cast<std::uint64_t>(world_->size());
  if (announcement.initiator >= workers || announcement.sequence <= last_) return false;
  formed->initiator = static_cast<int>(announcement.initiator);
  return members.front() >= 0 && members.back() < world_->size() &&
         std::adjacent_find(members.begin(), members.end(), std::greater_equal<>()) ==
             members.end() &&
         std::binary_search(members.begin(), members.end(), world_->rank());
}

Status GroupService::request() { return say(Request::wants_group, 0); }
Status GroupService::done(const Group& group) { return say(Request::has_executed, group.sequence); }
Status GroupService::leave() { return say(Request::leaves, 0); }

Status GroupService::say(std::uint64_t what, std::uint64_t sequence) {
  const Request request{what, sequence};
  return rings_.say(std::as_bytes(std::span(&request, 1)));
}

}  // namespace slip
