#include "slipstream/collectives/mailbox.h"

#include <algorithm>
#include <utility>

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
             {.bytes = options_.bytes, .kinds = options_.kinds, .bell = Bell::progress}),
      serving_(world.progress().serve(world.transport(), [this] { return progress(); })) {}

std::shared_ptr<Mailbox::Buffer> Mailbox::buffer(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  auto found = std::ranges::find_if(buffers_, [](const auto& b) { return b.use_count() == 1; });
  if (found == buffers_.end()) {
    buffers_.push_back(std::make_shared<Buffer>());
    found = std::prev(buffers_.end());
  }
  (*found)->resize(bytes);
  return *found;
}

Status Mailbox::post(std::span<const Letter> letters, bool flush) {
  const std::lock_guard lock(mutex_);
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
  return slots_.give_back(keep);
}

std::size_t Mailbox::waiting() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

/// On the progress thread: something has come, or was given back.
bool Mailbox::progress() {
  const std::lock_guard lock(mutex_);
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
  std::erase_if(under_way_, [&](std::size_t slot) { return slots_.arrived(slot); });
  auto next = queue_.begin();
  while (under_way_.size() < window(options_.kinds)) {
    next = std::find_if(next, queue_.end(),
                        [&](const Letter& letter) { return slots_.has_room(letter.out); });
    if (next == queue_.end()) return {};
    std::size_t slot = 0;
    if (Status s = slots_.put(next->out, next->kind, next->round,
                              next->buffer->data() + next->first, next->bytes, &slot);
        !s) {
      return s;
    }
    under_way_.push_back(slot);
    ++sent_;
    bytes_ += next->bytes;
    next = queue_.erase(next);
  }
  return {};
}

/// On the worker's thread, which alone writes its counters.
void Mailbox::count() {
  Counters& counters = world_.counters();
  counters.updates_sent.add(std::exchange(sent_, 0));
  counters.bytes_sent.add(std::exchange(bytes_, 0));
  counters.updates_late.add(slots_.replaced());
}

}  // namespace slip
