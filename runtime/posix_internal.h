#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/base/steady_clock_internal.h"
#include "slipstream/base/time.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// Owns a file descriptor; -1 is none.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    other.reset();
    return *this;
  }
  ~FileDescriptor() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

/// A descriptor that a system call returned, or Error(io) that says what failed.
inline FileDescriptor checked(int fd, const char* what) {
  if (fd < 0) throw_errno(what);
  return FileDescriptor(fd);
}

/// The same open file under a number that a child does not use for its standard streams.
inline FileDescriptor above_standard(FileDescriptor fd) {
  if (fd.get() > 2) return fd;
  return checked(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3), "fcntl");
}

/// Now plus `timeout`; `never` where the sum would not fit.
inline Time deadline_after(Duration timeout) {
  const Time now = steady_now();
  return timeout >= never - now ? never : now + timeout;
}

/// For poll and epoll_wait: whole milliseconds, rounded up, at most a minute (callers loop).
inline int poll_milliseconds(Time deadline) {
  using std::chrono::milliseconds;
  const Duration left =
      std::clamp<Duration>(deadline - steady_now(), Duration(0), std::chrono::minutes(1));
  return static_cast<int>(std::chrono::ceil<milliseconds>(left).count());
}

/// Waits until `fd` has one of `events` (or an error, which the next call on it will show); false
/// once the deadline has passed.
inline bool wait_ready(int fd, short events, Time deadline) {
  for (;;) {
    pollfd entry{fd, events, 0};
    const int ready = poll(&entry, 1, poll_milliseconds(deadline));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) throw_errno("poll");
    if (steady_now() >= deadline) return false;
  }
}

/// Text from a peer, made fit for one line of a message.
inline std::string printable(std::string_view text) {
  std::string line(text.substr(0, 1024));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return line;
}

}  // namespace slip

#pragma GCC visibility pop
