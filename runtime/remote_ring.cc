#include "slipstream/runtime/remote_ring.h"

#include <fmt/format.h>

#include <bit>
#include <string>

namespace slip {
namespace {

using ring_layout::record_bytes;
using ring_layout::word_bytes;

std::string ring_name(std::string_view name, int sender) {
  return fmt::format("ring/{}/{}", name, sender);
}
std::string head_name(std::string_view name, int receiver) {
  return fmt::format("ring-head/{}/{}", name, receiver);
}

std::size_t checked(std::size_t capacity) {
  if (capacity < 64 || capacity > (std::size_t{1} << 30) || !std::has_single_bit(capacity)) {
    throw Error(
        Code::invalid_argument,
        fmt::format("a ring's capacity is a power of two from 64 to 2^30, not {}", capacity));
  }
  return capacity;
}

}  // namespace

RingSender::RingSender(const World& world, int receiver, std::string_view name,
                       std::size_t capacity)
    : world_(&world),
      head_(world.allocate(head_name(name, receiver), 64)),
      capacity_(checked(capacity)),
      incarnation_(world.incarnation()) {
  ring_ = world.attach(receiver, ring_name(name, world.rank()));
  if (ring_.bytes < capacity) {
    throw Error(Code::peer_mismatch,
                fmt::format("ring '{}': rank {} has a smaller one than rank {}", name, receiver,
                            world.rank()),
                receiver);
  }
  // Behind the message: the next record's word, always zero here.
  if (!ring_.mapped()) staging_ = std::make_unique<std::byte[]>(capacity / 4 + word_bytes);
}

RingSender::RingSender(const World& world, RingReceiver& receiver)
    : world_(&world),
      head_(world.transport().allocate(64)),
      capacity_(receiver.capacity_),
      incarnation_(world.incarnation()) {
  ring_ = world.transport().attach(world.rank(), receiver.ring_.key());
  receiver.head_word_ = world.transport().attach(world.rank(), head_.key());
  if (!ring_.mapped()) staging_ = std::make_unique<std::byte[]>(capacity_ / 4 + word_bytes);
}

bool RingSender::has_room_now(std::uint64_t end) {
  const std::uint64_t head = iteration_of(head_.word(0));
  // Written by a peer: it cannot have consumed what was not published.
  if (head >= known_head_ && head <= tail_) known_head_ = head;
  return end - known_head_ <= capacity_;
}

Status RingSender::wait_for_room(std::size_t bytes, Time deadline, std::uint64_t* record) {
  if (bytes > max_message()) {
    return {Code::invalid_argument,
            fmt::format("a message of {} bytes; this ring takes {}", bytes, max_message())};
  }
  const auto has_come = [&] { return (*record = place(bytes)) != no_room; };
  return world_->wait_until(has_come, deadline, "room in a ring");
}

Status RingSender::publish_in_parts(std::uint64_t record, std::size_t bytes) {
  const std::uint64_t filler = tail_;
  // The record first: when the filler sends the receiver to offset 0, a word must be there.
  if (ring_.mapped()) {
    publish_mapped(record, bytes);
  } else {
    const std::size_t size = record_bytes(bytes);
    std::memset(staging_.get() + size - word_bytes, 0, word_bytes);
    const Word word =
        ring_layout::make_record_word(incarnation_, record, static_cast<std::uint32_t>(bytes));
    const std::size_t offset = offset_of(record);
    if (Status status = world_->transport().put_signal(ring_, offset + word_bytes, staging_.get(),
                                                       size, offset, word);
        !status) {
      return status;
    }
    tail_ = record + size;
  }
  if (record == filler) return {};
  return world_->transport().put_signal(
      ring_, 0, nullptr, 0, offset_of(filler),
      ring_layout::make_record_word(incarnation_, filler, ring_layout::filler));
}

RingReceiver::RingReceiver(const World& world, int sender, std::string_view name,
                           std::size_t capacity, Bell bell)
    : world_(&world),
      sender_(sender),
      ring_(world.allocate(ring_name(name, sender), checked(capacity), bell)),
      capacity_(capacity) {
  if (sender != world.rank()) head_word_ = world.attach(sender, head_name(name, world.rank()));
}

Status RingReceiver::return_credit() {
  returned_ = head_;
  return world_->transport().put_signal(head_word_, 0, nullptr, 0, 0,
                                        make_word(world_->incarnation(), head_));
}

Status RingReceiver::damaged(std::size_t length) const {
  return {Code::bad_data,
          fmt::format("rank {}: a record of {} bytes in the ring from rank {} cannot be",
                      world_->rank(), length, sender_),
          sender_};
}

}  // namespace slip
