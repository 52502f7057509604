#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "slipstream/runtime/world.h"

namespace slip::cli {

/// Which iteration each worker is in, for the progress line of rank 0.
class Board {
 public:
  virtual ~Board() = default;
  /// This worker is in `iteration`.
  virtual void post(Iteration iteration) = 0;
  /// What `rank` posted last. At rank 0 only.
  virtual Iteration at(int rank) const = 0;
};

/// For workers of one process: they share `iterations`, one for each rank.
class LocalBoard final : public Board {
 public:
  LocalBoard(std::vector<std::atomic<Iteration>>& iterations, int rank)
      : iterations_(iterations), rank_(static_cast<std::size_t>(rank)) {}
  // Relaxed: the numbers stand for themselves.
  void post(Iteration iteration) override {
    iterations_[rank_].store(iteration, std::memory_order_relaxed);
  }
  Iteration at(int rank) const override {
    return iterations_[static_cast<std::size_t>(rank)].load(std::memory_order_relaxed);
  }

 private:
  std::vector<std::atomic<Iteration>>& iterations_;
  std::size_t rank_;
};

/// For processes: each writes into rank 0's memory, a few times a second, those of one host at the
/// same moments, so that what they write can be compared. Collective.
class RemoteBoard final : public Board {
 public:
  explicit RemoteBoard(const World& world);
  void post(Iteration iteration) override;
  Iteration at(int rank) const override;

 private:
  const World& world_;
  Region iterations_;  // at rank 0
  RemoteRegion rank0_;
  std::int64_t last_ = 0;  // moment
};

}  // namespace slip::cli
