#pragma once

#include <atomic>
#include <cstddef>
#include <deque>

#pragma GCC visibility push(hidden)

namespace slip {

/// Room for what is under way on streams: places for `Item`s, which are taken in turn and stay
/// where they are. What an item holds is kept until its place is taken again, or all go.
template <class Item>
class StreamPlaces {
 public:
  explicit StreamPlaces(std::size_t count) : places_(count) {}

  struct Place {
    Item item;
    std::atomic<bool> taken{false};
  };

  /// The one whose turn it is, taken or not.
  Place& next() { return places_[turn_.fetch_add(1, std::memory_order_relaxed) % places_.size()]; }
  /// A free one, whichever: a stream that waits may keep its own for long. Null: all are taken.
  /// From any thread.
  Place* take() {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      Place& place = next();
      if (claim(place)) return &place;
    }
    return nullptr;
  }
  /// The same, of which there are as many more as it takes: for one thread at a time, that must
  /// not wait, and uses nothing else.
  Place& take_or_add() {
    Place& place = next();
    if (claim(place)) return place;
    Place& added = places_.emplace_back();
    claim(added);
    return added;
  }
  static void give_back(Place& place) { place.taken.store(false, std::memory_order_release); }

 private:
  static bool claim(Place& place) {
    // Acquire: pairs with the release in `give_back`; what is there is not used any more.
    return !place.taken.exchange(true, std::memory_order_acquire);
  }

  std::deque<Place> places_;
  std::atomic<std::size_t> turn_{0};
};

}  // namespace slip

#pragma GCC visibility pop
