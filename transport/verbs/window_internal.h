#pragma once

#include <cstdint>

#pragma GCC visibility push(hidden)

/// Why no receive queue, mailbox or completion queue can overrun.
///
/// Each direction of a channel has a window of W messages, of which the receiver has a mailbox of W
/// cells, and numbers its messages 0, 1, ... A sender has at most W messages out for which it has
/// no credit. A receiver credits all messages that it has handled so far: in the immediate data of
/// each message that goes the other way, and, once it has handled W/4 since it last did, or fewer
/// of which the sender waits for one, by a credit (immediate data alone).
///
/// Each message, and each credit, takes one receive of its receiver's shared queue. A receiver
/// posts that receive again, and is done with the cell, before it counts the message as handled, so
/// before the sender can have credit for it. Then, for each peer,
///  - at most W messages from it are posted by it and not handled here, so message n finds cell
///    n mod W free, as message n - W has been credited;
///  - at most W credits from it are under way: each covers at least one message of ours that
///    nothing before it covers and for which we have no credit yet, and there are at most W of
///    these.
/// So at most 2W receives are taken for each peer, of the shared queue that has 2W times as many as
/// there are peers; it never runs empty, and no sender ever meets a receiver that is not ready.
/// Credits wait for nothing but room in the send queue, which the peer's device gives and not its
/// software; so two workers with full windows do not block each other.
///
/// A send queue of S requests is never given more than S: an unsignalled request counts until a
/// later signalled one completes, and one of any S/4 in a row is signalled. The completion queue
/// has an entry for each receive and for each request of each send queue.
namespace slip::verbs {

/// What the 32 bits of immediate data say.
enum class Notice : std::uint32_t {
  cell,             // a message is in its cell of the mailbox
  landed_worker,    // a word has landed in memory upon which Bell::worker may sleep
  landed_progress,  // the same, Bell::progress
  credit,           // nothing but that
};

constexpr int number_bits = 15;
constexpr std::uint32_t number_mask = (std::uint32_t{1} << number_bits) - 1;

/// The number of a message, and how many the sender has handled; both modulo 2^15.
constexpr std::uint32_t immediate(Notice notice, std::uint64_t number, std::uint64_t handled) {
  return static_cast<std::uint32_t>(notice) << 2 * number_bits |
         (static_cast<std::uint32_t>(handled) & number_mask) << number_bits |
         (static_cast<std::uint32_t>(number) & number_mask);
}
constexpr Notice notice_of(std::uint32_t immediate) {
  return static_cast<Notice>(immediate >> 2 * number_bits);
}
constexpr std::uint32_t handled_of(std::uint32_t immediate) {
  return immediate >> number_bits & number_mask;
}
constexpr std::uint32_t number_of(std::uint32_t immediate) { return immediate & number_mask; }

constexpr std::uint32_t most_window = 64;
constexpr std::uint32_t least_window = 4;

/// For each peer, of the queues that all share.
constexpr std::uint32_t receives_for(std::uint32_t window) { return 2 * window; }
constexpr std::uint32_t send_queue_for(std::uint32_t window) { return 2 * window; }
constexpr std::uint32_t completions_for(std::uint32_t window) {
  return receives_for(window) + send_queue_for(window);
}
/// Of connector_internal.h, in the same completion queue.
constexpr std::uint32_t knock_completions = 96;

/// The largest window with which a device that has such queues serves all peers. 0: there is none.
constexpr std::uint32_t window_for(int peers, int most_completions, int most_receives) {
  const auto fits = [&](std::uint32_t window) {
    return std::int64_t{peers} * completions_for(window) + knock_completions <= most_completions &&
           std::int64_t{peers} * receives_for(window) <= most_receives;
  };
  std::uint32_t window = most_window;
  while (window >= least_window && !fits(window)) window /= 2;
  return window >= least_window ? window : 0;
}

/// The sender's side of a direction. Sizes are powers of two up to `most_window`.
class SendWindow {
 public:
  explicit SendWindow(std::uint32_t size) : size_(size) {}

  bool is_open() const { return sent_ - credited_ < size_; }
  /// The number of the next message; `is_open`.
  std::uint64_t send() { return sent_++; }
  /// True if the peer has handled all messages before `number`.
  bool has_credit_for(std::uint64_t number) const { return credited_ >= number; }

  /// False if the peer cannot have handled so many: what it says is damaged.
  bool credit(std::uint32_t handled) {
    const std::uint32_t more = (handled - static_cast<std::uint32_t>(credited_)) & number_mask;
    if (more > sent_ - credited_) return false;
    credited_ += more;
    return true;
  }

 private:
  std::uint32_t size_;
  std::uint64_t sent_ = 0;
  std::uint64_t credited_ = 0;
};

/// The receiver's side of a direction.
class ReceiveWindow {
 public:
  explicit ReceiveWindow(std::uint32_t size) : size_(size) {}

  /// False if that message cannot be the next one.
  bool is_next(std::uint32_t number) const {
    return number == (static_cast<std::uint32_t>(handled_) & number_mask);
  }
  /// The cell of the next message.
  std::uint32_t cell() const { return static_cast<std::uint32_t>(handled_) & (size_ - 1); }
  /// `at_once`: the sender may wait for credit for this one.
  void handle(bool at_once) {
    ++handled_;
    asked_ = asked_ || at_once;
  }

  bool credit_is_due() const { return asked_ || handled_ - credited_ >= size_ / 4; }
  std::uint64_t credit() {
    asked_ = false;
    return credited_ = handled_;
  }

 private:
  std::uint32_t size_;
  std::uint64_t handled_ = 0;
  std::uint64_t credited_ = 0;
  bool asked_ = false;
};

}  // namespace slip::verbs

#pragma GCC visibility pop
