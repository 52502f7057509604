#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/processor.h"
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
/// the other. A worker's ring to itself begins with its receiver.
namespace ring_layout {
/// Of what stands before each message.
constexpr std::size_t word_bytes = sizeof(Word);
constexpr std::uint32_t filler = ~std::uint32_t{0};  // in place of a length: go on at offset 0

/// Which lap and place a record belongs to: its position, in bytes ever used, in words.
constexpr std::uint16_t tag_of(std::uint64_t position) {
  return static_cast<std::uint16_t>(position / word_bytes);
}

/// Never zero, since incarnations begin at 1.
constexpr Word make_record_word(std::uint16_t incarnation, std::uint64_t position,
                                std::uint32_t bytes) {
  return make_word(incarnation, (Iteration{tag_of(position)} << 32) | bytes);
}
/// The tag of its record.
constexpr std::uint16_t tag_in(Word word) { return static_cast<std::uint16_t>(word >> 32); }
/// Bytes of its message, or `filler`.
constexpr std::uint32_t length_in(Word word) { return static_cast<std::uint32_t>(word); }

/// Of the word and the message.
constexpr std::size_t record_bytes(std::size_t message) {
  return word_bytes + (message + 7) / 8 * 8;
}
}  // namespace ring_layout

class RingReceiver;

/// The producer's end. Belongs to one thread.
class RingSender {
 public:
  /// `capacity` is a power of two, from 64 bytes to 1 GiB. Throws Error.
  RingSender(const World& world, int receiver, std::string_view name, std::size_t capacity);
  /// The other end of this worker's own `receiver`.
  RingSender(const World& world, RingReceiver& receiver);

  std::size_t max_message() const { return capacity_ / 4 - ring_layout::word_bytes; }

  /// Where to write a message of `bytes`, or null while the ring is too full. At most max_message()
  /// bytes. The previous claim must have been committed or aborted.
  std::byte* claim(std::size_t bytes) {
    const std::uint64_t record = place(bytes);
    if (record == no_room) return nullptr;
    record_ = record;
    claimed_ = bytes;
    return payload(record);
  }

  /// Publishes the claimed message.
  Status commit() { return publish(record_, claimed_); }

  /// Forgets the claimed message.
  void abort() { claimed_ = 0; }

  /// claim, copy and commit; waits for room until `deadline`.
  Status send(std::span<const std::byte> message, Time deadline) {
    // Few stores besides the record: they would queue behind it until the receiver's processor has
    // given up the line.
    std::uint64_t record = place(message.size());
    if (record == no_room) [[unlikely]] {
      std::uint64_t awaited = no_room;  // so that `record` may stay in a register
      if (Status s = wait_for_room(message.size(), deadline, &awaited); !s) return s;
      record = awaited;
    }
    copy(payload(record), message.data(), message.size());
    return publish(record, message.size());
  }

 private:
  static constexpr std::uint64_t no_room = ~std::uint64_t{0};
  static constexpr std::size_t prefetch_bytes = 512;

  std::size_t offset_of(std::uint64_t position) const { return position & (capacity_ - 1); }
  std::byte* payload(std::uint64_t record) const {
    if (staging_ != nullptr) [[unlikely]]
      return staging_.get();
    return ring_.memory.get() + offset_of(record) + ring_layout::word_bytes;
  }

  /// The library copies short messages with a few wide, overlapping stores. Here they would go
  /// across cache lines that the receiver's processor has yet to give up, which is several times
  /// slower than narrow ones in order.
  static void copy(std::byte* to, const std::byte* from, std::size_t bytes) {
    if (bytes <= 256) {
#pragma GCC unroll 1
      for (; bytes >= 16; bytes -= 16, to += 16, from += 16) {
        std::memcpy(to, from, 16);
        asm volatile("" ::: "memory");  // or the compiler would call the library
      }
    }
    if (bytes > 0) std::memcpy(to, from, bytes);
  }

  /// The position of the next record: behind the last one, or at the ring's beginning if it and
  /// the word behind it do not fit before the end.
  std::uint64_t place(std::size_t bytes) {
    if (bytes > max_message()) [[unlikely]]
      return no_room;
    const std::size_t size = ring_layout::record_bytes(bytes) + ring_layout::word_bytes;
    const std::size_t left = capacity_ - offset_of(tail_);
    const std::uint64_t record = size <= left ? tail_ : tail_ + left;
    const bool room = record + size - known_head_ <= capacity_ || has_room_now(record + size);
    return room ? record : no_room;
  }
  bool has_room_now(std::uint64_t end);
  Status wait_for_room(std::size_t bytes, Time deadline, std::uint64_t* record);

  Status publish(std::uint64_t record, std::size_t bytes) {
    if (staging_ != nullptr || record != tail_) [[unlikely]]
      return publish_in_parts(record, bytes);
    publish_mapped(record, bytes);
    return {};
  }
  /// Where load and store reach the ring.
  void publish_mapped(std::uint64_t record, std::size_t bytes) {
    const std::size_t offset = offset_of(record);
    const std::size_t size = ring_layout::record_bytes(bytes);
    // Stores wait in order for lines that the receiver's processor still holds: ask for them early.
    prefetch_for_writing(ring_.memory.get() + offset_of(record + prefetch_bytes));
    // A plain store: the release of the word orders it.
    std::memset(ring_.memory.get() + offset + size, 0, ring_layout::word_bytes);
    ring_.signal_mapped(offset, ring_layout::make_record_word(incarnation_, record,
                                                              static_cast<std::uint32_t>(bytes)));
    tail_ = record + size;
  }
  Status publish_in_parts(std::uint64_t record, std::size_t bytes);

  const World* world_;
  RemoteRegion ring_;  // at the receiver
  Region head_;        // here, written by the receiver
  std::size_t capacity_;
  std::uint16_t incarnation_;
  std::uint64_t tail_ = 0;                // where the next record begins, in bytes ever used
  std::uint64_t known_head_ = 0;          // consumed, as far as looked at
  std::uint64_t record_ = 0;              // where the claimed record begins
  std::size_t claimed_ = 0;               // the length of its message
  std::unique_ptr<std::byte[]> staging_;  // the message, where the ring is not mapped
};

/// The consumer's end, which owns the memory. Belongs to one thread.
class RingReceiver {
 public:
  /// Messages ring `bell`: Bell::progress for a service that runs while the worker computes. Throws
  /// Error.
  RingReceiver(const World& world, int sender, std::string_view name, std::size_t capacity,
               Bell bell = Bell::worker);

  /// True if a message is waiting.
  bool ready() const { return ring_.word(offset()) != 0; }

  /// Hands the messages that are there, at most `limit`, to `handler(std::span<const std::byte>)`
  /// and returns how many there were. Fails with bad_data if the ring's contents make no sense;
  /// then nothing more is to be had from this sender.
  template <class Handler>
  Status poll(Handler&& handler, int limit, int* count) {
    int handled = 0;
    Status status;
    std::uint64_t head = head_;
    std::size_t length = length_;
    int lingered = 0;
    while (handled < limit) {
      const std::size_t offset = head & (capacity_ - 1);
      Word word = ring_.word(offset);
      if (word == 0) {
        // In a stream of messages, let a few more come: who looks for each of them takes the line
        // from the sender while it writes.
        if (handled - lingered < 2) break;
        lingered = handled;
        for (int i = 0; i < 32; ++i) relax();
        word = ring_.word(offset);
        if (word == 0) break;
      }
      if (ring_layout::tag_in(word) != ring_layout::tag_of(head)) [[unlikely]] {
        status = damaged(ring_layout::length_in(word));
        break;
      }
      if (ring_layout::length_in(word) != length) [[unlikely]] {
        if (ring_layout::length_in(word) == ring_layout::filler && offset != 0) {
          head_ = head += capacity_ - offset;
          continue;
        }
        length = ring_layout::length_in(word);
        // Lengths mostly repeat. The processor then takes this branch to be left out, knows from
        // the last length where the next record lies, and fetches several at once; if the compiler
        // saw that both lengths are the same now, each would wait for the one before.
        asm volatile("" : "+r"(length));
      }
      // It came from the peer; in 64 bits the arithmetic cannot overflow.
      const std::size_t size = ring_layout::record_bytes(length);
      if (size + ring_layout::word_bytes > capacity_ - offset) [[unlikely]] {
        status = damaged(length);
        break;
      }
      handler(std::span<const std::byte>(ring_.data() + offset + ring_layout::word_bytes, length));
      ++handled;
      head_ = head += size;
      // A quarter of the ring at a time: the word would else bounce with every message.
      if (head - returned_ >= capacity_ / 4) [[unlikely]] {
        status = return_credit();
        if (!status) break;
      }
    }
    length_ = length;
    *count = handled;
    return status;
  }

 private:
  friend class RingSender;

  std::size_t offset() const { return head_ & (capacity_ - 1); }
  Status return_credit();
  Status damaged(std::size_t length) const;

  const World* world_;
  int sender_;
  Region ring_;             // here, written by the sender
  RemoteRegion head_word_;  // at the sender
  std::size_t capacity_;
  std::uint64_t head_ = 0;      // bytes ever consumed
  std::uint64_t returned_ = 0;  // as the sender was told last
  std::size_t length_ = 0;      // of the last message
};

}  // namespace slip
