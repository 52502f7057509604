#include "slipstream/collectives/group_generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace slip {
namespace {

Status senseless(int worker, std::string_view what) {
  return {Code::bad_data,
          fmt::format("group generator: rank {} {}, which makes no sense", worker, what), worker};
}

}  // namespace

GroupGenerator::GroupGenerator(const GroupGeneratorOptions& options)
    : options_(options),
      random_(key({options.seed, 0x67726f757073})),
      workers_(static_cast<std::size_t>(std::max(0, options.workers))) {
  if (options.group_size < 2) {
    throw Error(Code::invalid_argument,
                fmt::format("a group has at least 2 workers, not {}", options.group_size));
  }
  const bool by_host = options.policy == GroupPolicy::inter_intra;
  const bool knows_hosts =
      options.topology != nullptr && options.topology->size() == options.workers;
  if (options.workers < 1 || (by_host && !knows_hosts)) {
    throw Error(Code::invalid_argument,
                fmt::format("a group generator for {} workers has no topology of so many",
                            options.workers));
  }
}

Status GroupGenerator::request(int worker, std::vector<FormedGroup>* told) {
  Worker& asking = of(worker);
  if (!asking.present) return senseless(worker, "asks for a group after it has left");
  switch (options_.policy) {
    case GroupPolicy::random:
      if (asking.asked_for != 0) return senseless(worker, "asks for two groups at once");
      pending_.push_back(form(draw(worker), worker));
      asking.asked_for = sequence_;
      grant(told);
      return {};
    case GroupPolicy::buffer:
      if (buffer_empty(asking)) told->push_back(form(draw(worker), worker));
      return {};
    case GroupPolicy::division:
    case GroupPolicy::inter_intra:
      if (buffer_empty(asking)) divide_for(worker, told);
      return {};
  }
  return {};
}

Status GroupGenerator::done(int worker, std::uint64_t sequence, std::vector<FormedGroup>* told) {
  Worker& finished = of(worker);
  const bool locks = options_.policy == GroupPolicy::random;
  if (sequence <= finished.last_executed || sequence > finished.last_formed ||
      (locks && sequence != finished.locked_by)) {
    return senseless(worker, fmt::format("has executed group {}", sequence));
  }
  finished.last_executed = sequence;
  ++finished.averages;
  if (!locks) return {};
  finished.locked_by = 0;
  if (finished.asked_for == sequence) finished.asked_for = 0;
  grant(told);
  return {};
}

Status GroupGenerator::leave(int worker) {
  if (!std::exchange(of(worker).present, false)) return senseless(worker, "leaves twice");
  return {};
}

bool GroupGenerator::gone(int worker) const {
  return !of(worker).present && buffer_empty(of(worker));
}

FormedGroup GroupGenerator::form(std::vector<int> members, int initiator) {
  ++sequence_;
  for (const int member : members) of(member).last_formed = sequence_;
  return {{sequence_, std::move(members)}, initiator};
}

/// The initiator and others that are present, at random.
std::vector<int> GroupGenerator::draw(int initiator) {
  std::vector<int> group = {initiator};
  std::vector<int> others;
  for (int worker = 0; worker < options_.workers; ++worker) {
    if (worker != initiator && of(worker).present) others.push_back(worker);
  }
  const std::size_t wanted =
      std::min(others.size(), static_cast<std::size_t>(options_.group_size) - 1);
  for (std::size_t i = 0; i < wanted; ++i) {
    std::swap(others[i], others[i + random_.below(others.size() - i)]);
    group.push_back(others[i]);
  }
  std::sort(group.begin(), group.end());
  return group;
}

/// Whose buffers are empty, but for those that the filter leaves out; in ascending order.
std::vector<int> GroupGenerator::free_workers(int initiator) const {
  // The request under way counts as well.
  const std::int64_t requests = of(initiator).averages + 1;
  std::vector<int> free;
  for (int rank = 0; rank < options_.workers; ++rank) {
    const Worker& worker = of(rank);
    if (!worker.present || !buffer_empty(worker)) continue;
    const bool lags = options_.filter && requests - worker.averages > *options_.filter;
    if (rank == initiator || !lags) free.push_back(rank);
  }
  return free;
}

void GroupGenerator::divide_for(int initiator, std::vector<FormedGroup>* told) {
  const std::vector<int> free = free_workers(initiator);
  const auto tell = [&](Division division) {
    for (std::vector<int>& group : division) told->push_back(form(std::move(group), initiator));
  };
  if (options_.policy == GroupPolicy::division) {
    tell(divide(free, options_.group_size, random_));
  } else {
    tell(inter_step(free, *options_.topology, round_++, options_.group_size, random_));
    tell(intra_step(free, *options_.topology));
  }
}

/// Of the pending groups, first come first served: those that meet no lock and no earlier group.
void GroupGenerator::grant(std::vector<FormedGroup>* told) {
  std::vector<bool> taken(workers_.size());
  for (std::size_t i = 0; i < workers_.size(); ++i) taken[i] = workers_[i].locked_by != 0;
  for (auto pending = pending_.begin(); pending != pending_.end();) {
    const Group& group = pending->group;
    bool free = true;
    for (const int member : group.members) {
      free = free && !taken[static_cast<std::size_t>(member)];
      taken[static_cast<std::size_t>(member)] = true;
    }
    if (!free) {
      ++pending;
      continue;
    }
    for (const int member : group.members) of(member).locked_by = group.sequence;
    told->push_back(std::move(*pending));
    pending = pending_.erase(pending);
  }
}

std::size_t GroupGenerator::most_told(const GroupGeneratorOptions& options) {
  switch (options.policy) {
    case GroupPolicy::random:
    case GroupPolicy::division:
      return 1;
    case GroupPolicy::inter_intra:
      return 2;
    case GroupPolicy::buffer:
      break;  // each was made by a worker that had no other
  }
  return static_cast<std::size_t>(options.workers);
}

std::size_t GroupGenerator::largest_group(const GroupGeneratorOptions& options) {
  // A division may make a group one larger than asked for, and a host may have all workers.
  const bool by_host = options.policy == GroupPolicy::inter_intra;
  const int largest = by_host ? options.workers : options.group_size + 1;
  return static_cast<std::size_t>(std::min(largest, options.workers));
}

}  // namespace slip
