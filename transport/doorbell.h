#pragma once

#include <atomic>
#include <cstdint>

#include "slipstream/base/time.h"

namespace slip {

/// Who sleeps until a write arrives: the worker itself, or the progress thread that serves it.
enum class Bell : std::uint32_t { worker = 1, progress = 2 };

/// One per worker, in memory that every peer on its host maps. Everything that can make a condition
/// of that worker true rings it after its write; ringing costs one load unless somebody sleeps.
///
/// The classic sleeper's race (the writer's store and its load of `sleepers` may pass each other)
/// is closed by the sleeper: it announces itself and issues membarrier(GLOBAL_EXPEDITED), which is
/// a full fence on every processor that runs a registered process. Where the kernel refuses that,
/// `writers_fence` is set and every writer pays a read-modify-write instead.
struct alignas(64) Doorbell {
  /// Futex word; counts wake-ups. Bumped with release by a writer that found a sleeper, read with
  /// acquire by the sleeper before it announces itself.
  std::atomic<std::uint32_t> events{0};
  /// Bits of Bell. Set by the sleeper (seq_cst exchange), cleared by whoever wakes it; pairs with
  /// the load (or read-modify-write) in `ring`.
  std::atomic<std::uint32_t> sleepers{0};
  /// Written once before the doorbell is shared.
  std::atomic<std::uint32_t> writers_fence{0};
};

/// True where this process takes part in asymmetric fences; registers it on first use.
bool asymmetric_fences();

/// After this, every store made before by any processor of a registered process is visible here,
/// or its later loads see our earlier stores.
void asymmetric_fence();

/// True if a sleeper of that kind has to be woken, and then by this caller alone. Call after the
/// write that it waits for.
inline bool must_wake(Doorbell& doorbell, Bell bell) {
  const auto bit = static_cast<std::uint32_t>(bell);
  // Relaxed is enough: either the sleeper's fence makes it see our write, or we see its bit. The
  // compiler cannot move the load above the write's release store past a signal fence.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  const std::uint32_t sleepers = doorbell.writers_fence.load(std::memory_order_relaxed)
                                     ? doorbell.sleepers.fetch_or(0, std::memory_order_seq_cst)
                                     : doorbell.sleepers.load(std::memory_order_relaxed);
  if ((sleepers & bit) == 0) [[likely]]
    return false;
  return (doorbell.sleepers.fetch_and(~bit, std::memory_order_acq_rel) & bit) != 0;
}

/// Wakes the worker that owns the doorbell (a system call).
void wake_worker(Doorbell& doorbell);

/// Announces a sleeper; it must look at its conditions once more before it sleeps.
void announce_sleeper(Doorbell& doorbell, Bell bell);
/// Takes back what `announce_sleeper` said, without a sleep.
void withdraw_sleeper(Doorbell& doorbell, Bell bell);

/// Sleeps until `events` differs from `seen` or `timeout` has passed.
void sleep_on(Doorbell& doorbell, std::uint32_t seen, Duration timeout);

}  // namespace slip
