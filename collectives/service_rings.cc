#include "slipstream/collectives/service_rings.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <string>

#include "slipstream/gpu/stream.h"

namespace slip {
namespace {

std::string requests_name(std::string_view name) { return fmt::format("{}/requests", name); }
std::string told_name(std::string_view name) { return fmt::format("{}/told", name); }

}  // namespace

std::size_t ring_capacity(std::size_t records) {
  constexpr std::size_t smallest = 64;
  return std::bit_ceil(std::max(smallest, 2 * records));
}

ServiceRings::ServiceRings(const World& world, std::string_view name, ServiceRingSizes sizes,
                           Bell bell)
    : world_(&world) {
  // The two ends of a ring wait for each other, so rank 0 makes them in this order, too.
  if (world.rank() != 0) requests_.emplace(world, 0, requests_name(name), sizes.requests);
  told_.emplace(world, 0, told_name(name), sizes.told, bell);
}

std::size_t ServiceRings::memory(int workers, int rank, ServiceRingSizes sizes) {
  constexpr std::size_t head = 64;
  const std::size_t own = sizes.told + head;
  if (rank != 0) return own;
  return own + static_cast<std::size_t>(workers) * (sizes.requests + head);
}

Status ServiceRings::say(std::span<const std::byte> request) {
  return requests_->send(request, world_->deadline());
}

ServiceDesk::ServiceDesk(const World& world, std::string_view name, ServiceRingSizes sizes,
                         ServiceRings& own)
    : world_(world) {
  const auto workers = static_cast<std::size_t>(world.size());
  requests_.reserve(workers);
  told_.reserve(workers);
  for (int rank = 0; rank < world.size(); ++rank) {
    requests_.emplace_back(world, rank, requests_name(name), sizes.requests, Bell::progress);
    if (rank == world.rank()) {
      own.requests_.emplace(world, requests_.back());
      told_.emplace_back(world, *own.told_);
    } else {
      told_.emplace_back(world, rank, told_name(name), sizes.told);
    }
  }
}

void ServiceDesk::open(std::function<Status(int, std::span<const std::byte>)> answer,
                       std::function<Status()> decide) {
  answer_ = std::move(answer);
  decide_ = std::move(decide);
  serving_ = world_.progress().serve(world_.transport(), [this] { return poll(); });
}

/// Hears everybody; true if there may be more.
bool ServiceDesk::poll() {
  const gpu::Detached detached;
  bool any = false;
  for (int rank = 0; status_ && rank < world_.size(); ++rank) {
    int count = 0;
    Status answered;
    const auto hear = [&](std::span<const std::byte> request) {
      if (answered) answered = answer_(rank, request);
    };
    status_ = requests_[static_cast<std::size_t>(rank)].poll(hear, 4, &count);
    if (status_) status_ = answered;
    any |= count > 0;
  }
  if (status_ && any && decide_) status_ = decide_();
  if (!status_) world_.abort(status_);
  return status_ && any;
}

}  // namespace slip
