#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "slipstream/base/word.h"
#include "slipstream/runtime/neighbourhood.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// What slots are made for; the same at all workers.
struct LatestSlotsOptions {
  std::size_t bytes = 0;  // of the largest message
  int kinds = 1;          // at most LatestSlots::most_kinds
  /// Whom arriving messages wake; `progress` where a service collects them.
  Bell bell = Bell::worker;
  int device = gpu::host;  // whose memory messages are in, here and at all workers
};

/// Latest wins: a receiver has for each sender and *kind* of message (a fragment, say) the newest
/// one that has come, and nobody waits for anybody.
///
/// One-sided writes would tear what the receiver reads. So a sender has one slot more at each
/// receiver than there are kinds, and writes only into slots that the receiver has given back:
///
///   - A slot belongs to the sender until it puts a message there, whose word (its round and kind)
///     becomes visible after the whole of it. From then on it belongs to the receiver, which alone
///     says when it is the sender's again: it puts the message's word back into the sender's `free`
///     word for that slot. A pair of round and kind is sent to a receiver once, so no other message
///     can be meant by it.
///   - The receiver gives a slot back as soon as a newer message of that kind has come, even where
///     that one was seen first, or its message was used up; and not while it reads it. A word of
///     the slot cannot change before that, so what the receiver reads is whole, by the order of
///     puts alone: no read is tried again, no atomics, no trust in how wide or in which order
///     payload bytes land.
///   - Of its kinds + 1 slots a sender finds one free unless it has messages under way or the
///     receiver is reading just then: it can replace what is not read yet.
///
/// The receiver looks at the words in `collect`: on a progress thread, so that what is old is given
/// back while the worker computes. Calls are made by one thread at a time, but the messages that
/// `take` has returned may be read meanwhile.
class LatestSlots {
 public:
  static constexpr int most_kinds = 1 << 16;
  static constexpr Iteration most_rounds = Iteration{1} << (iteration_bits - 16);

  /// What has come: it stays readable until it is given back or dropped.
  struct Message {
    std::size_t in = 0;  // of whom: index of Neighbourhood::in
    int kind = 0;
    Iteration round = 0;
    const std::byte* data = nullptr;
  };
  enum class Keep { none, newest };

  /// Made by all workers with the same name and options; waits for the neighbours. Throws Error.
  LatestSlots(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
              const LatestSlotsOptions& options);

  /// Bytes of shared memory at a worker with so many neighbours.
  static std::size_t memory(std::size_t in_neighbours, std::size_t out_neighbours,
                            const LatestSlotsOptions& options);

  // ---- As a sender; `out` indexes Neighbourhood::out.

  /// There is a slot for a message.
  bool has_room(std::size_t out) const;
  /// Puts a message where there is room. Rounds of a kind go up, and are below most_rounds.
  /// `number`, if wanted, is what to ask `arrived` for.
  Status put(std::size_t out, int kind, Iteration round, const std::byte* data, std::size_t bytes,
             std::size_t* number = nullptr);
  /// The receiver has collected the last message put with that number.
  bool arrived(std::size_t number) const;

  // ---- As the receiver.

  /// Something has come that was not collected yet.
  bool any_new() const;
  /// Takes note of what has come and gives back what it replaces. For each message in the order of
  /// senders (rounds in any order) `accept(message)` says whether it is kept, or counts as lost.
  /// Else bad_data: a word that nobody may write.
  template <class Accept>
  Status collect(Accept&& accept) {
    Message message;
    Status status;
    for (std::size_t slot = 0; status && slot < seen_.size(); ++slot) {
      if (!comes(slot, &message, &status)) continue;
      status = enter(slot, message, accept(message));
    }
    return status;
  }
  /// The newest messages, by kind and then by sender, until `give_back`, once.
  std::span<const Message> take();
  /// Gives what was taken back to the senders; with Keep::newest only where newer ones have come,
  /// and the others will be taken again.
  Status give_back(Keep keep = Keep::none);
  /// Messages that were given back without having been taken, since the last call.
  std::uint64_t replaced();

 private:
  static constexpr int none = -1;

  std::size_t depth() const { return static_cast<std::size_t>(options_.kinds) + 1; }
  bool comes(std::size_t slot, Message* message, Status* status);
  Status enter(std::size_t slot, const Message& message, bool accepted);
  Status tell(std::size_t slot, std::size_t answer);
  /// By in and kind.
  std::size_t place(std::size_t in, int kind) const {
    return in * static_cast<std::size_t>(options_.kinds) + static_cast<std::size_t>(kind);
  }
  std::size_t block_bytes() const;
  std::size_t word_at(std::size_t neighbour, std::size_t slot) const;
  std::size_t payload_at(std::size_t neighbour, std::size_t slot) const;

  const World* world_;
  LatestSlotsOptions options_;
  std::vector<Neighbour> in_;
  std::vector<Neighbour> out_;
  // A slot's number is neighbour * depth + slot.
  Region slots_;    // here, by in-neighbour: a word for each slot, then the messages
  Region answers_;  // here, by out-neighbour and slot: the word last collected, the one given back
  std::vector<RemoteRegion> receivers_;  // by out: their slots_
  std::vector<RemoteRegion> senders_;    // by in: their answers_
  std::vector<Word> sent_;               // by slot at a receiver: the last word put there
  std::vector<Word> seen_;               // by slot here: the last word collected
  std::vector<bool> was_taken_;          // by slot here: the message in it
  std::vector<int> held_;                // by in and kind: the slot of the newest message
  std::vector<Word> newest_;             // by in and kind: the word last held, taken since or not
  std::vector<Message> taken_;
  std::vector<std::size_t> taken_slots_;  // beside it
  std::uint64_t replaced_ = 0;
};

}  // namespace slip
