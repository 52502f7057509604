#include "slipstream/transport/doorbell.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>

namespace slip {
namespace {

long membarrier(int command) { return syscall(SYS_membarrier, command, 0, 0); }

std::uint32_t* futex_word(Doorbell& doorbell) {
  return reinterpret_cast<std::uint32_t*>(&doorbell.events);
}

}  // namespace

bool asymmetric_fences() {
  static const bool available = [] {
    const long supported = membarrier(MEMBARRIER_CMD_QUERY);
    return supported > 0 && (supported & MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0 &&
           membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0;
  }();
  return available;
}

void asymmetric_fence() {
  if (asymmetric_fences()) membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}

void wake_worker(Doorbell& doorbell) {
  doorbell.events.fetch_add(1, std::memory_order_release);
  syscall(SYS_futex, futex_word(doorbell), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void announce_sleeper(Doorbell& doorbell, Bell bell) {
  doorbell.sleepers.fetch_or(static_cast<std::uint32_t>(bell), std::memory_order_seq_cst);
  asymmetric_fence();
}

void withdraw_sleeper(Doorbell& doorbell, Bell bell) {
  doorbell.sleepers.fetch_and(~static_cast<std::uint32_t>(bell), std::memory_order_acq_rel);
}

void sleep_on(Doorbell& doorbell, std::uint32_t seen, Duration timeout) {
  timeout = std::max(timeout, Duration::zero());
  const timespec relative{timeout.count() / 1'000'000'000, timeout.count() % 1'000'000'000};
  syscall(SYS_futex, futex_word(doorbell), FUTEX_WAIT, seen, &relative, nullptr, 0);
}

}  // namespace slip
