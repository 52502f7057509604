#include <fmt/format.h>

#include <atomic>

#include "slipstream/collectives/windows_internal.h"

namespace slip::partial_all_reduce {
namespace {

// Of a word that says why a worker gave up: `code:16 | culprit + 1:32`.
constexpr int culprit_bits = 32;

}  // namespace

Windows::Windows(const World& world, std::string_view name, std::size_t bytes,
                 const PartialAllReduceOptions& options)
    : world_(world),
      name_(name),
      copies_at_post_(world.transport().copies_at_post()),
      device_(options.device),
      wait_(options.wait),
      bell_(options.in_background ? Bell::progress : Bell::worker),
      lines_(round_up(bytes, line)),
      region_(world.allocate(name, lines_ + lines_bytes(), bell_, device_)),
      peers_(static_cast<std::size_t>(world.size())) {}

RemoteRegion Windows::attach(int peer, const std::string& name, std::size_t bytes) const {
  RemoteRegion region = world_.attach(peer, name);
  if (region.bytes == bytes) return region;
  throw Error(Code::peer_mismatch,
              fmt::format("'{}': rank {} has {} bytes and rank {} has {}; do both have the same "
                          "count, type and options?",
                          name, peer, region.bytes, world_.rank(), bytes),
              peer);
}

Status Windows::meet(int rank, Peer** met) {
  std::unique_ptr<Peer>& peer = peers_[static_cast<std::size_t>(rank)];
  if (!peer) {
    try {
      auto first = std::make_unique<Peer>();
      first->rank = rank;
      first->region = attach(rank, name_, region_.bytes());
      first->own_line = lines_ + slot(world_.rank(), rank) * line;
      first->line = lines_ + slot(rank, world_.rank()) * line;
      peer = std::move(first);
    } catch (const Error& error) {
      return error.status();
    }
  }
  *met = peer.get();
  return {};
}

void Windows::meet_all(std::size_t lanes_bytes) {
  std::vector<Peer*> through_lanes;
  for (int rank = 0; rank < world_.size(); ++rank) {
    if (rank == world_.rank()) continue;
    Peer* peer = nullptr;
    meet(rank, &peer).throw_if_failed();
    if (lanes_bytes > 0 && !peer->mapped()) through_lanes.push_back(peer);
  }
  if (!through_lanes.empty()) make_lanes(lanes_bytes);
  for (Peer* peer : through_lanes) attach_lanes(*peer, lanes_bytes);
}

void Windows::make_lanes(std::size_t bytes) {
  if (lanes_.data() != nullptr) return;
  lanes_ = world_.allocate(name_ + "/lanes", lines_bytes() + bytes, bell_, device_);
}

void Windows::attach_lanes(Peer& peer, std::size_t bytes) {
  if (peer.lanes.peer >= 0) return;
  peer.lanes = attach(peer.rank, name_ + "/lanes", lines_bytes() + bytes);
}

Status Windows::open_lanes(const Peer& peer, std::uint64_t sequence, std::size_t bytes) {
  if (peer.ready_for == sequence) return {};
  try {
    make_lanes(bytes);
  } catch (const Error& error) {
    return error.status();
  }
  return signal(peer, Sign::ready, progress(sequence, 0));
}

Status Windows::find_lanes(Peer& peer, std::uint64_t sequence, std::size_t bytes) {
  if (peer.ready_for == sequence) return {};
  if (Status s = await(peer, Sign::ready, progress(sequence, 0)); !s) return s;
  if (Status s = check_sequence(peer, word(peer, Sign::ready), sequence); !s) return s;
  try {
    attach_lanes(peer, bytes);
    return {};
  } catch (const Error& error) {
    return error.status();
  }
}

Status Windows::wait(FunctionRef<bool()> over, std::string_view what) {
  has_waited_ = true;
  return wait_ ? wait_(over, what) : world_.wait_until(over, world_.deadline(), what);
}

Status Windows::wait_for(const Peer& peer, FunctionRef<bool()> arrived) {
  const auto over = [&] { return arrived() || word(peer, Sign::gave_up) != 0; };
  const Status status = wait(over, "an all-reduce");
  if (status) return arrived() ? Status() : gave_up(peer);
  if (status.code() != Code::timeout) return status;
  return {Code::timeout,
          fmt::format("{} '{}': nothing has come from rank {}", status.message(), name_, peer.rank),
          peer.rank};
}

Status Windows::await_all(const Operation& operation, FunctionRef<bool()> done,
                          std::string_view what) {
  if (done()) return {};
  const auto first_to_give_up = [&]() -> const Peer* {
    for (const Member& member : operation.others) {
      if (word(*member.peer, Sign::gave_up) != 0) return member.peer;
    }
    return nullptr;
  };
  const Status status = wait([&] { return done() || first_to_give_up() != nullptr; }, what);
  if (status) return done() ? Status() : gave_up(*first_to_give_up());
  if (status.code() != Code::timeout) return status;
  return {Code::timeout, fmt::format("{} '{}'", status.message(), name_)};
}

void Windows::give_up(const Status& why) {
  const Iteration reason = static_cast<Iteration>(why.code()) << culprit_bits |
                           static_cast<std::uint32_t>(why.peer() + 1);
  for (const auto& peer : peers_) {
    // Whom it does not reach has been lost, and is told otherwise.
    if (peer) (void)signal(*peer, Sign::gave_up, reason);
  }
  // No later store of the caller overtakes this one nor the signals before it; whoever saw any of
  // them therefore sees the signal too, once it has acquired what it waits for.
  told_.exchange(true, std::memory_order_acq_rel);
}

Status Windows::explain(const Peer& peer, Word word) const {
  const auto code = static_cast<Code>(iteration_of(word) >> culprit_bits);
  const int culprit = static_cast<int>(static_cast<std::uint32_t>(word)) - 1;
  const std::string because =
      culprit < 0 ? std::string(to_string(code)) : fmt::format("{} {}", to_string(code), culprit);
  return {
      code == Code::peer_lost ? Code::peer_lost : Code::group_broken,
      fmt::format("rank {}: '{}': rank {} gave up: {}", world_.rank(), name_, peer.rank, because),
      culprit < 0 ? peer.rank : culprit};
}

Status Windows::out_of_order(const Peer& peer, Word word, std::uint64_t sequence) const {
  return {Code::group_broken,
          fmt::format("rank {}: '{}': rank {} is in group {} while this one is in group {}; does "
                      "every worker take its groups in order of sequence?",
                      world_.rank(), name_, peer.rank, sequence_of(word), sequence),
          peer.rank};
}

}  // namespace slip::partial_all_reduce
