#include "slipstream/collectives/latest_slots.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "slipstream/base/align_internal.h"

namespace slip {
namespace {

// What a receiver tells about a slot: two words.
constexpr std::size_t collected = 0;
constexpr std::size_t freed = sizeof(Word);
constexpr std::size_t answer_bytes = 2 * sizeof(Word);

// A word's number holds the round and the kind.
constexpr Iteration pack(Iteration round, int kind) {
  return round * LatestSlots::most_kinds + static_cast<Iteration>(kind);
}
constexpr Iteration round_of(Word word) { return iteration_of(word) / LatestSlots::most_kinds; }
constexpr int kind_of(Word word) {
  return static_cast<int>(iteration_of(word) % LatestSlots::most_kinds);
}

std::size_t depth_of(const LatestSlotsOptions& options) {
  return static_cast<std::size_t>(options.kinds) + 1;
}
/// What a receiver has for one sender.
std::size_t block_of(const LatestSlotsOptions& options) {
  return round_up(sizeof(Word) * depth_of(options)) + depth_of(options) * round_up(options.bytes);
}

const LatestSlotsOptions& checked(const LatestSlotsOptions& options) {
  if (options.kinds < 1 || options.kinds > LatestSlots::most_kinds) {
    throw Error(Code::invalid_argument, fmt::format("{} kinds of messages; allowed are 1 to {}",
                                                    options.kinds, LatestSlots::most_kinds));
  }
  return options;
}

}  // namespace

std::size_t LatestSlots::memory(std::size_t in_neighbours, std::size_t out_neighbours,
                                const LatestSlotsOptions& options) {
  return in_neighbours * block_of(options) + out_neighbours * depth_of(options) * answer_bytes;
}

LatestSlots::LatestSlots(const World& world, std::string_view name,
                         const Neighbourhood& neighbourhood, const LatestSlotsOptions& options)
    : world_(&world),
      options_(checked(options)),
      in_(neighbourhood.in),
      out_(neighbourhood.out),
      slots_(world.allocate(fmt::format("{}/slots", name), in_.size() * block_bytes(), options.bell,
                            options.device)),
      answers_(world.allocate(fmt::format("{}/answers", name), out_.size() * depth() * answer_bytes,
                              options.bell)),
      sent_(out_.size() * depth(), 0),
      seen_(in_.size() * depth(), 0),
      was_taken_(in_.size() * depth(), false),
      held_(in_.size() * static_cast<std::size_t>(options.kinds), none),
      newest_(held_.size(), 0) {
  // One message of each kind and sender at most.
  taken_.reserve(held_.size());
  taken_slots_.reserve(held_.size());
  const auto attach = [&](const Neighbour& peer, const char* what, std::size_t block) {
    RemoteRegion region = world.attach(peer.peer, fmt::format("{}/{}", name, what));
    if (region.bytes < (static_cast<std::size_t>(peer.index) + 1) * block) {
      throw Error(
          Code::peer_mismatch,
          fmt::format("'{}': the slots of rank {} are smaller than rank {} expects; do both "
                      "have the same graph, model and fragments?",
                      name, peer.peer, world.rank()),
          peer.peer);
    }
    return region;
  };
  for (const Neighbour& peer : out_) receivers_.push_back(attach(peer, "slots", block_bytes()));
  for (const Neighbour& peer : in_) {
    senders_.push_back(attach(peer, "answers", depth() * answer_bytes));
  }
}

std::size_t LatestSlots::block_bytes() const { return block_of(options_); }
std::size_t LatestSlots::word_at(std::size_t neighbour, std::size_t slot) const {
  return neighbour * block_bytes() + slot * sizeof(Word);
}
std::size_t LatestSlots::payload_at(std::size_t neighbour, std::size_t slot) const {
  return neighbour * block_bytes() + round_up(sizeof(Word) * depth()) +
         slot * round_up(options_.bytes);
}

// ---- As a sender.

bool LatestSlots::has_room(std::size_t out) const {
  for (std::size_t slot = out * depth(); slot < (out + 1) * depth(); ++slot) {
    if (answers_.word(slot * answer_bytes + freed) == sent_[slot]) return true;
  }
  return false;
}

Status LatestSlots::put(std::size_t out, int kind, Iteration round, const std::byte* data,
                        std::size_t bytes, std::size_t* number) {
  std::size_t slot = out * depth();
  while (answers_.word(slot * answer_bytes + freed) != sent_[slot]) ++slot;
  const Word word = make_word(world_->incarnation(), pack(round, kind));
  sent_[slot] = word;
  if (number != nullptr) *number = slot;
  const auto place = static_cast<std::size_t>(out_[out].index);
  const std::size_t there = slot - out * depth();
  return world_->transport().put_signal(receivers_[out], payload_at(place, there), data, bytes,
                                        word_at(place, there), word);
}

bool LatestSlots::arrived(std::size_t number) const {
  const std::size_t at = number * answer_bytes;
  return answers_.word(at + collected) == sent_[number] ||
         answers_.word(at + freed) == sent_[number];
}

// ---- As the receiver.

bool LatestSlots::any_new() const {
  for (std::size_t slot = 0; slot < seen_.size(); ++slot) {
    if (slots_.word(word_at(slot / depth(), slot % depth())) != seen_[slot]) return true;
  }
  return false;
}

/// Whether a message has come into that slot, and which.
bool LatestSlots::comes(std::size_t slot, Message* message, Status* status) {
  const std::size_t in = slot / depth();
  const Word word = slots_.word(word_at(in, slot % depth()));
  if (word == seen_[slot]) return false;
  seen_[slot] = word;
  was_taken_[slot] = false;
  if (kind_of(word) >= options_.kinds) {
    *status = {Code::bad_data,
               fmt::format("rank {}: rank {} has sent a message of kind {}; there are {}",
                           world_->rank(), in_[in].peer, kind_of(word), options_.kinds),
               in_[in].peer};
    return false;
  }
  *message = {in, kind_of(word), round_of(word), slots_.data() + payload_at(in, slot % depth())};
  return true;
}

/// Holds what has come, unless a newer message of its kind was held before: two that land while
/// `collect` is between their slots are seen the other way round, the older one by the next look,
/// when the newer one may have been taken. Words of a kind go up, from life to life of a sender,
/// too.
Status LatestSlots::enter(std::size_t slot, const Message& message, bool accepted) {
  if (!accepted) return tell(slot, freed);
  const std::size_t at = place(message.in, message.kind);
  int older = static_cast<int>(slot);
  if (newest_[at] < seen_[slot]) {
    newest_[at] = seen_[slot];
    std::swap(held_[at], older);
    if (Status s = tell(slot, collected); !s) return s;
  }
  if (older == none) return {};
  if (!was_taken_[static_cast<std::size_t>(older)]) ++replaced_;
  return tell(static_cast<std::size_t>(older), freed);
}

Status LatestSlots::tell(std::size_t slot, std::size_t answer) {
  const std::size_t in = slot / depth();
  const std::size_t there = static_cast<std::size_t>(in_[in].index) * depth() + slot % depth();
  return world_->transport().put_signal(senders_[in], 0, nullptr, 0, there * answer_bytes + answer,
                                        seen_[slot]);
}

std::span<const LatestSlots::Message> LatestSlots::take() {
  taken_.clear();
  taken_slots_.clear();
  for (int kind = 0; kind < options_.kinds; ++kind) {
    for (std::size_t in = 0; in < in_.size(); ++in) {
      const int held_slot = std::exchange(held_[place(in, kind)], none);
      if (held_slot == none) continue;
      const auto slot = static_cast<std::size_t>(held_slot);
      taken_.push_back(
          {in, kind, round_of(seen_[slot]), slots_.data() + payload_at(in, slot % depth())});
      taken_slots_.push_back(slot);
      was_taken_[slot] = true;
    }
  }
  return taken_;
}

Status LatestSlots::give_back(Keep keep) {
  Status status;
  for (std::size_t i = 0; status && i < taken_.size(); ++i) {
    int& newest = held_[place(taken_[i].in, taken_[i].kind)];
    if (keep == Keep::newest && newest == none) {
      newest = static_cast<int>(taken_slots_[i]);
    } else {
      status = tell(taken_slots_[i], freed);
    }
  }
  taken_.clear();
  taken_slots_.clear();
  return status;
}

std::uint64_t LatestSlots::replaced() { return std::exchange(replaced_, 0); }

}  // namespace slip
