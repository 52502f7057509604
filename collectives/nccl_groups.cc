#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "slipstream/collectives/nccl_groups_internal.h"
#include "slipstream/gpu/device.h"
#include "slipstream/gpu/nccl.h"

namespace slip::partial_all_reduce {
namespace {

using namespace std::chrono_literals;

// Where a peer's ids come: two places, which it uses in turn, each an id and the word behind it.
// To hand over number k it has come to the operation around which it does, so this worker has ended
// the one of number k - 1, and has taken number k - 2.
constexpr std::size_t word_offset = sizeof(gpu::NcclId);
constexpr std::size_t place_bytes = round_up(word_offset + sizeof(Word), line);

constexpr std::size_t place_of(int sender, int receiver, std::uint64_t number) {
  return (slot(sender, receiver) * 2 + number % 2) * place_bytes;
}

/// What a worker tells all others at set-up: version and GPU; or nothing, and why not.
std::string introduction(int device) {
  try {
    gpu::nccl_usable().throw_if_failed();
    return gpu::nccl_version() + '\n' + gpu::device_uuid(device);
  } catch (const Error& error) {
    return std::string("\n") + error.what();
  }
}

void check(std::string_view name, const std::vector<std::string>& introductions) {
  constexpr std::string_view instead = "choose another algorithm, or automatic";
  std::vector<std::pair<std::string, std::string>> all;
  for (const std::string& text : introductions) {
    const std::size_t cut = std::min(text.find('\n'), text.size());
    all.emplace_back(text.substr(0, cut), text.substr(std::min(cut + 1, text.size())));
  }
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const auto& [version, gpu] = all[rank];
    const int culprit = static_cast<int>(rank);
    if (version.empty()) {
      throw Error(Code::not_supported,
                  fmt::format("'{}': rank {} cannot use NCCL: {}; or {}", name, rank, gpu, instead),
                  culprit);
    }
    if (version != all[0].first) {
      throw Error(
          Code::peer_mismatch,
          fmt::format("'{}': rank {} has NCCL {} and rank 0 has {}; install one for all, or "
                      "name it by SLIP_NCCL_LIBRARY",
                      name, rank, version, all[0].first),
          culprit);
    }
    for (std::size_t other = 0; other < rank; ++other) {
      if (gpu != all[other].second) continue;
      throw Error(Code::not_supported,
                  fmt::format("'{}': ranks {} and {} share {}, which NCCL does not do; give each a "
                              "GPU of its own, or {}",
                              name, other, rank, gpu, instead),
                  culprit);
    }
  }
}

}  // namespace

NcclGroups::NcclGroups(Windows& windows, std::string_view name, int device)
    : windows_(windows),
      name_(name),
      device_(device),
      patience_(std::min<Duration>(5s, world().options().wait_timeout)),
      handed_(static_cast<std::size_t>(world().size())) {
  const auto others = static_cast<std::size_t>(world().size() - 1);
  ids_ = world().allocate(name_ + "/ids", std::max<std::size_t>(1, others) * 2 * place_bytes);
  check(name, world().bootstrap().all_gather(name_ + "/nccl", introduction(device),
                                             world().options().join_timeout));
  known_.reserve(window);
}

NcclGroups::~NcclGroups() {
  if (failed_) return;
  if (world().aborted()) {
    abort();
  } else {
    forget(~std::uint64_t{0});
  }
}

NcclGroups::Known* NcclGroups::find(const Group& group) {
  const auto found = std::find_if(known_.begin(), known_.end(), [&](const Known& known) {
    return known.members == group.members;
  });
  return found == known_.end() ? nullptr : &*found;
}

/// With this one.
std::uint64_t NcclGroups::times(const Group& group) {
  const Known* known = find(group);
  if (known == nullptr || group.sequence - known->last >= window) return 1;
  return known->times + (group.sequence > known->last ? 1 : 0);
}

void NcclGroups::enter(const Group& group) {
  std::erase_if(closing_, [](const auto& communicator) { return communicator->gone(); });
  const std::uint64_t times = this->times(group);
  forget(group.sequence);
  current_ = find(group);
  if (current_ == nullptr) current_ = &known_.emplace_back(Known{.members = group.members});
  current_->last = group.sequence;
  current_->times = times;
}

/// Groups that have not come back by then.
void NcclGroups::forget(std::uint64_t sequence) {
  std::erase_if(known_, [&](Known& known) {
    if (sequence - known.last < window) return false;
    if (known.communicator) {
      known.communicator->close();
      closing_.push_back(std::move(known.communicator));
    }
    return true;
  });
}

Status NcclGroups::begin(const Operation& operation) {
  if (!connects() || operation.place != 0) return {};
  try {
    id_ = gpu::make_nccl_id();
  } catch (const Error& error) {
    return told(error.status());
  }
  for (const Member& member : operation.others) {
    if (Status s = give(*member.peer, operation.sequence); !s) return s;
  }
  return {};
}

Status NcclGroups::end(const Operation& operation) {
  if (!connects()) return {};
  for (const Member& member : operation.others) {
    if (member.place != 0) continue;
    if (Status s = take(*member.peer, operation.sequence); !s) return s;
  }
  current_->communicator = std::make_unique<gpu::NcclCommunicator>(
      device_, id_, static_cast<int>(operation.size()), static_cast<int>(operation.place),
      patience_, [this] { world().wake(); });
  return {};
}

Status NcclGroups::give(const Peer& peer, std::uint64_t sequence) {
  Handed& handed = handed_[static_cast<std::size_t>(peer.rank)];
  if (handed.region.peer < 0) {
    try {
      handed.region = windows_.attach(peer.rank, name_ + "/ids", ids_.bytes());
    } catch (const Error& error) {
      return error.status();
    }
  }
  const std::size_t at = place_of(world().rank(), peer.rank, handed.to++);
  return world().transport().put_signal(handed.region, at, id_.data(), sizeof id_, at + word_offset,
                                        make_word(world().incarnation(), progress(sequence, 0)));
}

Status NcclGroups::take(const Peer& peer, std::uint64_t sequence) {
  Handed& handed = handed_[static_cast<std::size_t>(peer.rank)];
  const std::size_t at = place_of(peer.rank, world().rank(), handed.from++);
  const auto said = [&] { return ids_.word(at + word_offset); };
  const Iteration wanted = progress(sequence, 0);
  if (Status s = windows_.await(peer, [&] { return reached(said(), wanted); }); !s) return s;
  if (Status s = windows_.check_sequence(peer, said(), sequence); !s) return s;
  std::memcpy(id_.data(), ids_.data() + at, sizeof id_);
  return {};
}

Status NcclGroups::mean(const Operation& operation, ConstVectorView from, VectorView to) {
  // It has had the time since the operation before to connect.
  if (Status s = await(operation, "members to connect by NCCL"); !s) return s;
  current_->communicator->mean(from.data, to.data, to.count, size_of(to.dtype),
                               gpu::current_stream(device_));
  if (Status s = await(operation, "an all-reduce by NCCL"); !s) return s;
  // As a ring sends; NCCL does not tell what it sent.
  const std::size_t n = operation.size();
  world().counters().bytes_sent.add(2 * (n - 1) * (to.bytes() / n));
  return {};
}

Status NcclGroups::await(const Operation& operation, std::string_view what) {
  const gpu::NcclCommunicator& communicator = *current_->communicator;
  const auto settled = [&] { return communicator.settled(); };
  if (Status s = windows_.await_all(operation, settled, what); !s) return s;
  return told(communicator.status());
}

Status NcclGroups::told(const Status& status) const {
  if (status) return {};
  return {status.code(), fmt::format("rank {}: '{}': {}", world().rank(), name_, status.message())};
}

void NcclGroups::abort() {
  failed_ = true;
  for (const Known& known : known_) {
    if (known.communicator) known.communicator->abort();
  }
  for (const auto& communicator : closing_) communicator->abort();
  if (current_ != nullptr && current_->communicator) current_->communicator->await_gone();
}

}  // namespace slip::partial_all_reduce
