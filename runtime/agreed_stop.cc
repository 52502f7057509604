#include "slipstream/runtime/agreed_stop.h"

#include <algorithm>
#include <string>

namespace slip {
namespace {

// In own_: what rank 0 tells.
constexpr std::size_t asked_word = 0;
constexpr std::size_t last_word = 8;
constexpr std::size_t finished_word = 16;
// In collected_: the one word that several workers write, all the same value, and then each
// worker's answer and end.
constexpr std::size_t request_word = 0;
std::size_t answer_word(int rank) { return 64 + 16 * static_cast<std::size_t>(rank); }
std::size_t end_word(int rank) { return answer_word(rank) + 8; }

}  // namespace

AgreedStop::AgreedStop(const World& world, std::string_view name, Iteration limit, Iteration slack,
                       End end)
    : world_(&world),
      limit_(limit),
      slack_(end == End::together ? slack : 0),
      end_(end),
      own_(world.allocate(std::string(name) + "/stop", 64)) {
  const std::string stop = std::string(name) + "/stop";
  const std::string stops = std::string(name) + "/stops";
  if (world.rank() == 0) {
    collected_ = world.allocate(stops, answer_word(world.size()));
    for (int rank = 0; rank < world.size(); ++rank) workers_.push_back(world.attach(rank, stop));
  }
  rank0_ = world.attach(0, stops);
}

bool AgreedStop::asked() const {
  // Rank 0 answers in the poll in which it asks: its word to itself may take its time.
  return asked_all_ || own_.word(asked_word) != 0;
}

bool AgreedStop::all_have(std::size_t first_word, int* known) const {
  while (*known < world_->size() &&
         collected_.word(first_word + 16 * static_cast<std::size_t>(*known)) != 0) {
    ++*known;
  }
  return *known == world_->size();
}

bool AgreedStop::pending() const {
  if (wanted_.load(std::memory_order_relaxed) && !requested_) return true;
  if (asked() && !answered_) return true;
  if (world_->rank() != 0) return false;
  return (!asked_all_ && collected_.word(request_word) != 0) ||
         (!told_last_ && all_have(answer_word(0), &answers_)) ||
         (!told_finished_ && all_have(end_word(0), &finishes_));
}

Status AgreedStop::tell_all(std::size_t word_offset, Iteration value) {
  for (const RemoteRegion& worker : workers_) {
    if (Status s = world_->transport().put_signal(worker, 0, nullptr, 0, word_offset,
                                                  make_word(world_->incarnation(), value));
        !s) {
      return s;
    }
  }
  return {};
}

Status AgreedStop::poll(Iteration entered) {
  if (wanted_.load(std::memory_order_relaxed) && !requested_) {
    requested_ = true;
    if (Status s = world_->transport().put_signal(rank0_, 0, nullptr, 0, request_word,
                                                  make_word(world_->incarnation(), 0));
        !s) {
      return s;
    }
  }
  if (world_->rank() == 0 && !asked_all_ && collected_.word(request_word) != 0) {
    asked_all_ = true;
    if (Status s = tell_all(asked_word, 0); !s) return s;
  }
  if (asked() && !answered_) {
    answered_ = true;
    promise_ = std::min(limit_, entered + slack_);
    if (Status s =
            world_->transport().put_signal(rank0_, 0, nullptr, 0, answer_word(world_->rank()),
                                           make_word(world_->incarnation(), entered));
        !s) {
      return s;
    }
  }
  if (world_->rank() != 0) return {};
  if (!told_last_ && all_have(answer_word(0), &answers_)) {
    told_last_ = true;
    Iteration most = 0;
    for (int rank = 0; rank < world_->size(); ++rank) {
      most = std::max(most, iteration_of(collected_.word(answer_word(rank))));
    }
    if (Status s = tell_all(last_word, std::min(limit_, most + slack_)); !s) return s;
  }
  if (!told_finished_ && all_have(end_word(0), &finishes_)) {
    told_finished_ = true;
    return tell_all(finished_word, 0);
  }
  return {};
}

Iteration AgreedStop::last() const {
  if (end_ == End::where_it_is) return std::min(limit_, promise_);
  const Word word = own_.word(last_word);
  return word == 0 ? limit_ : std::min(limit_, iteration_of(word));
}

Iteration AgreedStop::bound() const {
  return own_.word(last_word) != 0 ? last() : std::min(limit_, promise_);
}

Status AgreedStop::finish() {
  return world_->transport().put_signal(rank0_, 0, nullptr, 0, end_word(world_->rank()),
                                        make_word(world_->incarnation(), 0));
}

bool AgreedStop::all_finished() const { return own_.word(finished_word) != 0; }

}  // namespace slip
