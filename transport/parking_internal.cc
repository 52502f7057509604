#include "slipstream/transport/parking_internal.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <chrono>

#include "slipstream/base/error.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

/// How long the progress thread leaves driving to a worker that was last seen spinning.
constexpr Duration tick = 2ms;
constexpr Duration at_once = 1ns;

}  // namespace

void Parking::open() {
  poll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (poll_fd_ < 0 || timer_fd_ < 0) throw_errno("cannot watch a network");
  watch(timer_fd_);
}

Parking::~Parking() {
  for (const int fd : {timer_fd_, poll_fd_}) {
    if (fd >= 0) close(fd);
  }
}

void Parking::watch(int fd) { add(fd, EPOLLIN); }

void Parking::watch_once(int fd) { add(fd, EPOLLONESHOT); }

void Parking::rearm(int fd) {
  epoll_event once{};
  once.events = EPOLLIN | EPOLLONESHOT;
  epoll_ctl(poll_fd_, EPOLL_CTL_MOD, fd, &once);
}

void Parking::add(int fd, std::uint32_t events) {
  epoll_event entry{};
  entry.events = events;
  if (epoll_ctl(poll_fd_, EPOLL_CTL_ADD, fd, &entry) != 0) throw_errno("cannot watch a network");
}

bool Parking::lie_down() {
  asleep_ = true;
  if (drives_ == seen_drives_) return true;
  seen_drives_ = drives_;
  ticking_ = true;
  set_timer(tick);
  return false;
}

void Parking::get_up() {
  asleep_ = ticking_ = false;
  std::uint64_t expirations = 0;
  [[maybe_unused]] const auto bytes = read(timer_fd_, &expirations, sizeof expirations);
}

void Parking::nudge() {
  if (!asleep_) return;
  asleep_ = ticking_ = false;
  ring();
}

void Parking::ring() { set_timer(at_once); }

void Parking::rest() {
  seen_drives_ = drives_;
  if (ticking_) nudge();
}

void Parking::set_timer(Duration after) {
  const itimerspec once{{}, {after.count() / 1'000'000'000, after.count() % 1'000'000'000}};
  timerfd_settime(timer_fd_, 0, &once, nullptr);
}

}  // namespace slip
