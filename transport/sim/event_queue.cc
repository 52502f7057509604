#include "slipstream/transport/sim/event_queue.h"

#include <algorithm>

namespace slip::sim {
namespace {
constexpr std::size_t arity = 4;
}

void EventQueue::schedule(Time at, Event event) {
  const Entry entry{std::max(at, now_), sequence_++, event};
  std::size_t hole = heap_.size();
  heap_.push_back(entry);
  while (hole > 0) {
    const std::size_t parent = (hole - 1) / arity;
    if (!entry.before(heap_[parent])) break;
    heap_[hole] = heap_[parent];
    hole = parent;
  }
  heap_[hole] = entry;
}

void EventQueue::run_one() {
  const Entry first = heap_.front();
  const Entry last = heap_.back();
  heap_.pop_back();
  if (!heap_.empty()) {
    std::size_t hole = 0;
    for (;;) {
      const std::size_t child = hole * arity + 1;
      if (child >= heap_.size()) break;
      std::size_t least = child;
      for (std::size_t c = child + 1; c < std::min(child + arity, heap_.size()); ++c) {
        if (heap_[c].before(heap_[least])) least = c;
      }
      if (!heap_[least].before(last)) break;
      heap_[hole] = heap_[least];
      hole = least;
    }
    heap_[hole] = last;
  }
  now_ = first.at;
  ++executed_;
  first.event.run(first.event.object, first.event.argument);
}

}  // namespace slip::sim
