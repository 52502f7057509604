#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "slipstream/base/time.h"

namespace slip::sim {

/// What happens at a virtual time. Subclass-free on purpose: a function and two arguments, so that
/// a million of them a second need no allocation.
struct Event {
  void (*run)(void* object, std::uint64_t argument);
  void* object;
  std::uint64_t argument;
};

/// Events in order of time; those of one time in the order in which they were scheduled. One
/// thread.
class EventQueue {
 public:
  Time now() const { return now_; }
  bool empty() const { return heap_.empty(); }
  Time next_time() const { return heap_.empty() ? never : heap_.front().at; }
  std::uint64_t executed() const { return executed_; }

  /// At `at`, or now if that has passed.
  void schedule(Time at, Event event);

  /// Advances to the earliest event and runs it. The queue is not empty.
  void run_one();

 private:
  struct Entry {
    Time at;
    std::uint64_t sequence;
    Event event;
    bool before(const Entry& other) const {
      return at != other.at ? at < other.at : sequence < other.sequence;
    }
  };

  Time now_{0};
  std::uint64_t sequence_ = 0;
  std::uint64_t executed_ = 0;
  std::vector<Entry> heap_;  // four children a node: shallower, and a cache line or two a level
};

}  // namespace slip::sim
