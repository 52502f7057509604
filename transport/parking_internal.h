#pragma once

#include <cstdint>

#include "slipstream/base/time.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// How the progress thread sleeps on a network, and leaves driving to a worker that spins: one
/// descriptor that turns readable upon the network's events, or when a timer ends. Its owner's lock
/// guards it.
class Parking {
 public:
  Parking() = default;
  /// Before anything else. Throws Error.
  void open();
  ~Parking();
  Parking(const Parking&) = delete;
  Parking& operator=(const Parking&) = delete;

  int fd() const { return poll_fd_; }
  /// `fd` of the network ends the sleep, too. Throws Error.
  void watch(int fd);
  /// The same, but only once for each `rearm`. Not through a poll descriptor of its own: the kernel
  /// nests five, of which UCX takes one, and two transports together another.
  void watch_once(int fd);
  void rearm(int fd);

  // ---- The progress thread.

  /// It goes to sleep, for a tick only while a worker is seen to drive. True: the network's events
  /// must be armed.
  bool lie_down();
  /// It is awake.
  void get_up();
  /// Ends its sleep, if it sleeps.
  void nudge();
  /// The same, whether or not it is about to sleep only now.
  void ring();

  // ---- The worker.

  void drove() { ++drives_; }
  void rest();

 private:
  void add(int fd, std::uint32_t events);
  void set_timer(Duration after);

  int poll_fd_ = -1;
  int timer_fd_ = -1;
  bool asleep_ = false;            // the progress thread, or it is about to be
  bool ticking_ = false;           // for a tick only, as the worker drives
  std::uint64_t drives_ = 0;       // by a spinning worker
  std::uint64_t seen_drives_ = 0;  // when the progress thread went to sleep last
};

}  // namespace slip

#pragma GCC visibility pop
