#include "slipstream/runtime/tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "slipstream/base/align_internal.h"

namespace slip {
namespace {

constexpr Iteration finished_mark = max_iteration;

}  // namespace

Tokens::Tokens(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
               int max_gap)
    : world_(&world),
      max_gap_(max_gap),
      out_count_(neighbourhood.out.size()),
      in_(neighbourhood.in),
      words_(world.allocate(name, std::max<std::size_t>(1, out_count_) * line)) {
  if (max_gap < 1) {
    throw Error(Code::invalid_argument, fmt::format("max_gap is at least 1, not {}", max_gap));
  }
  for (const Neighbour& edge : in_) {
    senders_.push_back(world.attach(edge.peer, name));
    if (senders_.back().bytes < (static_cast<std::size_t>(edge.index) + 1) * line) {
      throw Error(
          Code::peer_mismatch,
          fmt::format("'{}': rank {} has fewer out-neighbours than rank {} expects; do both "
                      "have the same graph?",
                      name, edge.peer, world.rank()),
          edge.peer);
    }
  }
}

Status Tokens::put(Iteration iteration) {
  const Word word = make_word(world_->incarnation(), iteration);
  for (std::size_t i = 0; i < in_.size(); ++i) {
    const std::size_t at = static_cast<std::size_t>(in_[i].index) * line;
    if (Status s = world_->transport().put_signal(senders_[i], 0, nullptr, 0, at, word); !s) {
      return s;
    }
  }
  return {};
}

Status Tokens::announce(Iteration iteration) { return put(iteration); }
Status Tokens::announce_finished() { return put(finished_mark); }

std::int64_t Tokens::entered(std::size_t out) const {
  const Word word = words_.word(out * line);
  return word == 0 ? 0 : static_cast<std::int64_t>(iteration_of(word)) + 1;
}

bool Tokens::finished(std::size_t out) const {
  return iteration_of(words_.word(out * line)) == finished_mark;
}

std::int64_t Tokens::count(std::size_t out, Iteration own) const {
  return max_gap_ + entered(out) - 1 - static_cast<std::int64_t>(own);
}

bool Tokens::may_enter(Iteration next) const {
  for (std::size_t out = 0; out < out_count_; ++out) {
    if (count(out, next) < 0) return false;
  }
  return true;
}

Iteration Tokens::lag(Iteration own) const {
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (std::size_t out = 0; out < out_count_; ++out) {
    if (!finished(out)) least = std::min(least, count(out, own) - max_gap_);
  }
  if (least == std::numeric_limits<std::int64_t>::max()) return 0;
  return static_cast<Iteration>(std::max<std::int64_t>(least, 0));
}

Iteration Tokens::lead(Iteration own) const {
  std::int64_t most = 0;
  for (std::size_t out = 0; out < out_count_; ++out) {
    most = std::max(most, max_gap_ - count(out, own));
  }
  return static_cast<Iteration>(most);
}

bool Tokens::passed(std::size_t out, Iteration iteration) const {
  return entered(out) > static_cast<std::int64_t>(iteration) + 1;
}

}  // namespace slip
