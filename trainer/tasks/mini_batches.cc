#include <fmt/format.h>

#include <utility>

#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/mini_batches_internal.h"
#include "slipstream/trainer/tasks/process_cache_internal.h"

namespace slip {
namespace {

ProcessCache<Shares> partitions;

}  // namespace

MiniBatches::MiniBatches(std::shared_ptr<const Share> share, int batch, std::uint64_t seed,
                         int rank)
    : share_(std::move(share)),
      seed_(seed),
      rank_(static_cast<std::uint64_t>(rank)),
      batch_(static_cast<std::size_t>(batch)) {
  enter(0);
}

void MiniBatches::enter(std::uint64_t epoch) {
  epoch_ = epoch;
  order_ = *share_;
  Random random(key({seed_, rank_, epoch}));
  shuffle(order_, random);
}

std::span<const std::uint32_t> MiniBatches::at(Iteration iteration) {
  std::uint64_t position = iteration * batch_.size();
  for (std::uint32_t& sample : batch_) {
    const std::uint64_t epoch = position / share_->size();
    if (epoch != epoch_) enter(epoch);
    sample = order_[position % share_->size()];
    ++position;
  }
  return batch_;
}

double MiniBatches::iterations_per_epoch() const {
  return static_cast<double>(share_->size()) / static_cast<double>(batch_.size());
}

MiniBatches make_mini_batches(const TaskOptions& options, std::span<const std::uint8_t> labels) {
  return make_mini_batches(
      options, [&] { return partition(labels, options.partition, options.workers, options.seed); });
}

MiniBatches make_mini_batches(const TaskOptions& options, FunctionRef<Shares()> deal) {
  const auto shares =
      partitions.get(fmt::format("{} {} {} {} {}", options.partition, options.workers,
                                 options.batch, options.seed, options.task),
                     deal);
  // All shares live as long as one of them is in use.
  const auto& share = (*shares)[static_cast<std::size_t>(options.rank)];
  return {std::shared_ptr<const MiniBatches::Share>(shares, &share), options.batch, options.seed,
          options.rank};
}

}  // namespace slip
