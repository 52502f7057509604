#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/runtime/world.h"

namespace slip {

/// A ring of variable-length messages from one worker to one other, over one-sided writes: control
/// messages, requests, stop. The records lie in the receiver's memory; the receiver returns how
/// many bytes it has ever consumed to a word at the sender, which is the only flow control.
///
/// A record is its word, the message padded to 8 bytes, and behind it the word of the next record,
/// which is zero until that one is published: the sender clears it before it publishes this one, so
/// the receiver never takes bytes of an earlier lap for a word. There is no shared tail: a small
/// message and what announces it travel in the same cache line.
///
/// What is claimed but not committed was never published, so a sender that dies with a claim has
/// left nothing to skip. Both ends are made with the same name and capacity; making one waits for
/// the other.
namespace ring_layout {
constexpr std::size_t word_bytes = sizeof(Word);
constexpr std::uint32_t filler = ~std::uint32_t{0};  // in place of a length: go on at offset 0

/// Never zero, since incarnations begin at 1. `sequence` counts records and filler.
constexpr Word make_record_word(std::uint16_t incarnation, std::uint16_t sequence,
                                std::uint32_t bytes) {
  return make_word(incarnation, (Iteration{sequence} << 32) | bytes);
}
constexpr std::uint16_t sequence_of(Word word) { return static_cast<std::uint16_t>(word >> 32); }
constexpr std::uint32_t length_of(Word word) { return static_cast<std::uint32_t>(word); }

/// Of the word and the message.
constexpr std::size_t record_bytes(std::size_t message) {
  return word_bytes + (message + 7) / 8 * 8;
}
}  // namespace ring_layout

class RingSender {
 public:
  /// `capacity` is a power of two, from 64 bytes to 1 GiB. Throws Error.
  RingSender(const World& world, int receiver, std::string_view name, std::size_t capacity);

  std::size_t max_message() const { return capacity_ / 4 - ring_layout::word_bytes; }

  /// Where to write a message of `bytes`, or null while the ring is too full. At most max_message()
  /// bytes. The previous claim must have been committed or aborted.
  std::byte* claim(std::size_t bytes) {
    if (bytes > max_message()) return nullptr;
    const std::size_t size = ring_layout::record_bytes(bytes);
    const std::size_t offset = tail_ & (capacity_ - 1);
    const bool fits = offset + size + ring_layout::word_bytes <= capacity_;
    const std::uint64_t record = fits ? tail_ : tail_ + (capacity_ - offset);
    if (!has_room(record + size + ring_layout::word_bytes)) return nullptr;
    record_ = record;
    claimed_ = bytes;
    return payload();
  }

  /// Publishes the claimed message.
  Status commit() {
    if (staging_ != nullptr || record_ != tail_) [[unlikely]]
      return commit_in_parts();
    publish_mapped();
    return {};
  }

  /// Forgets the claimed message.
  void abort() { claimed_ = 0; }

  /// claim, copy and commit; waits for room until `deadline`.
  Status send(std::span<const std::byte> message, Time deadline) {
    std::byte* room = claim(message.size());
    if (room == nullptr) [[unlikely]] {
      if (Status status = wait_for_room(message.size(), deadline, &room); !status) return status;
    }
    if (!message.empty()) std::memcpy(room, message.data(), message.size());
    return commit();
  }

 private:
  std::byte* payload() const {
    if (staging_ != nullptr) return staging_.get();
    return ring_.memory.get() + (record_ & (capacity_ - 1)) + ring_layout::word_bytes;
  }
  bool has_room(std::uint64_t end) { return end - known_head_ <= capacity_ || has_room_now(end); }
  bool has_room_now(std::uint64_t end);
  Status wait_for_room(std::size_t bytes, Time deadline, std::byte** room);

  Word next_word(std::uint32_t bytes) {
    return ring_layout::make_record_word(incarnation_, sequence_++, bytes);
  }
  /// Where load and store reach the ring.
  void publish_mapped() {
    const std::size_t offset = record_ & (capacity_ - 1);
    const std::size_t size = ring_layout::record_bytes(claimed_);
    // A plain store: the release of the word orders it.
    std::memset(ring_.memory.get() + offset + size, 0, ring_layout::word_bytes);
    ring_.signal_mapped(offset, next_word(static_cast<std::uint32_t>(claimed_)));
    tail_ = record_ + size;
  }
  Status commit_in_parts();

  const World* world_;
  RemoteRegion ring_;  // at the receiver
  Region head_;        // here, written by the receiver
  std::size_t capacity_;
  std::uint16_t incarnation_;
  std::uint16_t sequence_ = 0;
  std::uint64_t tail_ = 0;                // where the next record begins, in bytes ever used
  std::uint64_t known_head_ = 0;          // consumed, as far as looked at
  std::uint64_t record_ = 0;              // where the claimed record begins
  std::size_t claimed_ = 0;               // the length of its message
  std::unique_ptr<std::byte[]> staging_;  // the claim, where the ring is not mapped
};

class RingReceiver {
 public:
  /// Messages ring `bell`: Bell::progress for a service that runs while the worker computes.
  RingReceiver(const World& world, int sender, std::string_view name, std::size_t capacity,
               Bell bell = Bell::worker);

  /// True if a message is waiting.
  bool ready() const { return ring_.word(offset()) != 0; }

  /// Hands the messages that are there, at most `limit`, to `handler(std::span<const std::byte>)`
  /// and returns how many there were. Fails with bad_data if the ring's contents make no sense;
  /// then nothing more is to be had from this sender.
  template <class Handler>
  Status poll(Handler&& handler, int limit, int* count) {
    *count = 0;
    while (*count < limit) {
      const Word word = ring_.word(offset());
      if (word == 0) break;
      const std::size_t length = ring_layout::length_of(word);
      const std::size_t room = capacity_ - offset();
      if (ring_layout::sequence_of(word) != sequence_) [[unlikely]]
        return damaged(length);
      if (length == ring_layout::filler) [[unlikely]] {
        if (offset() == 0) return damaged(length);
        head_position_ += room;
      } else {
        // It came from the peer; 64-bit arithmetic cannot overflow.
        const std::size_t size = ring_layout::record_bytes(length);
        if (size + ring_layout::word_bytes > room) [[unlikely]]
          return damaged(length);
        handler(
            std::span<const std::byte>(ring_.data() + offset() + ring_layout::word_bytes, length));
        ++*count;
        head_position_ += size;
      }
      ++sequence_;
      // A quarter of the ring at a time: the word would else bounce with every message.
      if (head_position_ - returned_ >= capacity_ / 4) [[unlikely]] {
        if (Status status = return_credit(); !status) return status;
      }
    }
    return {};
  }

 private:
  std::size_t offset() const { return head_position_ & (capacity_ - 1); }
  Status return_credit();
  Status damaged(std::size_t length) const;

  const World* world_;
  int sender_;
  Region ring_;        // here, written by the sender
  RemoteRegion head_;  // at the sender
  std::size_t capacity_;
  std::uint16_t sequence_ = 0;
  std::uint64_t head_position_ = 0;
  std::uint64_t returned_ = 0;  // the head that the sender was told last
};

}  // namespace slip
