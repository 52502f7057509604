#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace slip {

/// A number with one writer that anybody may read at any time. Relaxed: it orders nothing.
class Counter {
 public:
  void add(std::uint64_t n) { set(get() + n); }
  void set(std::uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  void raise_to(std::uint64_t n) { set(std::max(get(), n)); }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// What a worker has done, in a memory file of its own ("slipstream" under /proc/PID/fd), so that
/// it can be read from outside even when the worker hangs.
struct Counters {
  static constexpr std::uint64_t expected_magic = 0x736c69702d637472;  // "slip-ctr"
  std::uint64_t magic = expected_magic;
  std::uint32_t version = 1;
  std::int32_t rank = -1;
  Counter iteration;           // entered
  Counter iterations_skipped;  // jumped over
  Counter compute_ns;
  Counter wait_ns;  // in wait_until, for peers
  Counter bytes_sent;
  Counter updates_sent;
  Counter updates_used;
  Counter max_gap_seen;  // iterations ahead of the slowest receiver known, at most
  Counter updates_late;  // met when they were too old to be used
};

}  // namespace slip
