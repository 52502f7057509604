#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "slipstream/base/function_ref.h"
#include "slipstream/base/word.h"
#include "slipstream/trainer/tasks/partition_internal.h"
#include "slipstream/trainer/tasks/task.h"

namespace slip {

/// Which samples a worker's mini-batch holds: its share is shuffled anew for every pass, the passes
/// are strung together, and iteration k takes the k-th `batch` of them. So a mini-batch is a pure
/// function of (seed, rank, iteration), whatever iterations were asked for before, and a share
/// smaller than a batch works. Belongs to one thread.
class MiniBatches {
 public:
  using Share = std::vector<std::uint32_t>;

  /// `share` is not empty; `batch` is 1 .. largest_batch.
  MiniBatches(std::shared_ptr<const Share> share, int batch, std::uint64_t seed, int rank);

  /// Valid until the next call.
  std::span<const std::uint32_t> at(Iteration iteration);

  double iterations_per_epoch() const;

 private:
  void enter(std::uint64_t epoch);

  std::shared_ptr<const Share> share_;
  std::uint64_t seed_;
  std::uint64_t rank_;
  std::uint64_t epoch_ = 0;
  std::vector<std::uint32_t> order_;  // the share as shuffled for `epoch_`
  std::vector<std::uint32_t> batch_;
};

constexpr int largest_batch = 1 << 16;  // times the largest iteration it still fits 64 bits

/// Those of `options.rank`, where samples with these `labels` are dealt as `options.partition`
/// says; dealt once per process. Throws as partition().
MiniBatches make_mini_batches(const TaskOptions& options, std::span<const std::uint8_t> labels);
/// The same where `deal` makes the shares.
MiniBatches make_mini_batches(const TaskOptions& options, FunctionRef<Shares()> deal);

}  // namespace slip
