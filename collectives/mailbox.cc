#include "slipstream/collectives/mailbox.h"

#include <algorithm>
#include <utility>

#include "slipstream/kernels/memory_internal.h"

namespace slip {

std::size_t Mailbox::memory(std::size_t in_neighbours, std::size_t out_neighbours,
                            std::size_t bytes, int kinds) {
  return LatestSlots::memory(in_neighbours, out_neighbours, {.bytes = bytes, .kinds = kinds});
}

std::size_t Mailbox::window(int kinds) { return 1 + static_cast<std::size_t>(std::min(kinds, 3)); }

Mailbox::Mailbox(const World& world, std::string_view name, const Neighbourhood& neighbourhood,
                 Options options)
    : world_(world),
      options_(std::move(options)),
      slots_(world, name, neighbourhood,
             {.bytes = options_.bytes,
              .kinds = options_.kinds,
              .bell = Bell::progress,
              .device = options_.device}),
      side_(options_.device),
      serving_(world.progress().serve(world.transport(), [this] { return progress(); })) {}

std::shared_ptr<std::byte> Mailbox::buffer(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  auto found = std::ranges::find_if(buffers_, [bytes](const Memory& memory) {
    return memory.buffer.use_count() == 1 && memory.bytes >= bytes;
  });
  if (found == buffers_.end()) {
    buffers_.push_back({allocate_vector(options_.device, bytes), bytes});
    found = std::prev(buffers_.end());
  }
  return found->buffer;
}

Status Mailbox::follow() {
  const std::lock_guard lock(mutex_);
  return side_.follow();
}

Status Mailbox::post(std::span<const Letter> letters, bool flush) {
  const std::lock_guard lock(mutex_);
  if (Status s = side_.follow(); !s) return s;
  const gpu::CurrentStream enqueuing(side_.stream());
  if (flush) queue_.clear();
  queue_.insert(queue_.end(), letters.begin(), letters.end());
  const Status status = pump();
  count();
  return status;
}

std::span<const Mailbox::Message> Mailbox::take() {
  const std::lock_guard lock(mutex_);
  count();
  return slots_.take();
}

Status Mailbox::give_back(Keep keep) {
  const std::lock_guard lock(mutex_);
  // Not before what was taken has been read.
  if (Status s = side_.follow(); !s) return s;
  const gpu::CurrentStream enqueuing(side_.stream());
  return slots_.give_back(keep);
}

std::size_t Mailbox::waiting() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

/// On the progress thread: something has come, or was given back.
bool Mailbox::progress() {
  const std::lock_guard lock(mutex_);
  const gpu::CurrentStream enqueuing(side_.stream());
  bool any = false;
  const auto accept = [&](const Message& message) {
    any = true;
    if (options_.lost && options_.lost(message)) return false;
    if (options_.answer) {
      if (std::optional<Letter> letter = options_.answer(message)) {
        queue_.push_back(std::move(*letter));
      }
    }
    return true;
  };
  Status status = slots_.collect(accept);
  if (status) status = pump();
  if (!status) world_.abort(status);
  return any && status;
}

/// Posts as much of the queue as the window takes.
Status Mailbox::pump() {
  std::erase_if(under_way_, [&](const UnderWay& one) { return slots_.arrived(one.slot); });
  auto next = queue_.begin();
  while (under_way_.size() < window(options_.kinds)) {
    next = std::find_if(next, queue_.end(),
                        [&](const Letter& letter) { return slots_.has_room(letter.out); });
    if (next == queue_.end()) return {};
    std::size_t slot = 0;
    if (Status s = slots_.put(next->out, next->kind, next->round, next->buffer.get() + next->first,
                              next->bytes, &slot);
        !s) {
      return s;
    }
    under_way_.push_back({slot, options_.device != gpu::host ? next->buffer : nullptr});
    ++sent_;
    bytes_ += next->bytes;
    next = queue_.erase(next);
  }
  return {};
}

void Mailbox::count_sent() {
  const std::lock_guard lock(mutex_);
  add_sent();
}

/// On the worker's thread, which alone writes its counters.
void Mailbox::add_sent() {
  Counters& counters = world_.counters();
  counters.updates_sent.add(std::exchange(sent_, 0));
  counters.bytes_sent.add(std::exchange(bytes_, 0));
}

void Mailbox::count() {
  add_sent();
  world_.counters().updates_late.add(slots_.replaced());
}

}  // namespace slip
