#include "slipstream/collectives/group_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
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

// A worker says at most three things before it waits for an answer: that it has executed what was
// in its buffer, and a request.
constexpr std::size_t request_ring_bytes = 512;

std::size_t announcement_bytes(std::size_t members) {
  return sizeof(Announcement) + members * sizeof(std::int32_t);
}

/// Room for all that a worker may be told before it executes any of it, though room comes back late
/// and messages do not wrap.
std::size_t group_ring_bytes(const GroupGeneratorOptions& options) {
  const std::size_t largest =
      ring_layout::record_bytes(announcement_bytes(GroupGenerator::largest_group(options)));
  return std::bit_ceil(
      std::max<std::size_t>(64, largest * (4 + 2 * (GroupGenerator::most_told(options) + 1))));
}

std::string requests_name(std::string_view name) { return fmt::format("{}/requests", name); }
std::string groups_name(std::string_view name) { return fmt::format("{}/groups", name); }

}  // namespace

/// Rank 0's part: on its progress thread, but for the constructor.
class __attribute__((visibility("hidden"))) GroupService::Server {
 public:
  Server(const World& world, std::string_view name, const GroupGeneratorOptions& options,
         GroupService& own)
      : world_(world), generator_(options) {
    const auto workers = static_cast<std::size_t>(world.size());
    requests_.reserve(workers);
    members_.reserve(workers);
    told_gone_.resize(workers);
    for (int rank = 0; rank < world.size(); ++rank) {
      requests_.emplace_back(world, rank, requests_name(name), request_ring_bytes, Bell::progress);
      if (rank == world.rank()) {
        own.requests_.emplace(world, requests_.back());
        members_.emplace_back(world, *own.groups_);
      } else {
        members_.emplace_back(world, rank, groups_name(name), group_ring_bytes(options));
      }
    }
    serving_ = world.progress().serve(world.transport(), [this] { return poll(); });
  }

 private:
  /// Hears everybody; true if there may be more.
  bool poll() {
    bool any = false;
    for (int rank = 0; status_ && rank < world_.size(); ++rank) {
      int count = 0;
      Status heard;
      const auto hear = [&](std::span<const std::byte> message) {
        if (heard) heard = answer(rank, message);
      };
      status_ = requests_[static_cast<std::size_t>(rank)].poll(hear, 4, &count);
      if (status_) status_ = heard;
      if (!status_) world_.abort(status_);
      any |= count > 0;
    }
    return status_ && any;
  }

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
    RingSender& ring = members_[static_cast<std::size_t>(rank)];
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

  const World& world_;
  GroupGenerator generator_;
  std::vector<RingReceiver> requests_;  // by rank
  std::vector<RingSender> members_;     // by rank
  std::vector<bool> told_gone_;
  std::vector<FormedGroup> told_;  // by the request at hand; keeps its capacity
  Status status_;
  std::unique_ptr<Progress::Handle> serving_;
};

GroupService::GroupService(const World& world, std::string_view name,
                           const GroupGeneratorOptions& options, Bell bell)
    : world_(&world) {
  if (options.workers != world.size()) {
    throw Error(Code::invalid_argument,
                fmt::format("a group generator for {} workers in a world of {}", options.workers,
                            world.size()));
  }
  // The two ends of a ring wait for each other, so rank 0 makes them in this order, too.
  if (world.rank() != 0) requests_.emplace(world, 0, requests_name(name), request_ring_bytes);
  groups_.emplace(world, 0, groups_name(name), group_ring_bytes(options), bell);
  if (world.rank() == 0) server_ = std::make_unique<Server>(world, name, options, *this);
}

GroupService::~GroupService() = default;

std::size_t GroupService::memory(const GroupGeneratorOptions& options, int rank) {
  constexpr std::size_t head = 64;
  const std::size_t own = group_ring_bytes(options) + head;
  if (rank != 0) return own;
  return own + static_cast<std::size_t>(options.workers) * (request_ring_bytes + head);
}

Status GroupService::take(FormedGroup* formed) {
  bool makes_sense = false;
  const auto read = [&](std::span<const std::byte> message) {
    makes_sense = parse(message, formed);
  };
  int count = 0;
  if (Status s = groups_->poll(read, 1, &count); !s) return s;
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
  return requests_->send(std::as_bytes(std::span(&request, 1)), world_->deadline());
}

}  // namespace slip
