#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>

#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/mini_batches_internal.h"
#include "slipstream/trainer/tasks/movielens_internal.h"
#include "slipstream/trainer/tasks/process_cache_internal.h"
#include "slipstream/trainer/tasks/rating_task_internal.h"
#include "slipstream/trainer/tasks/settings_internal.h"

namespace slip {
namespace {

constexpr std::array<std::string_view, 1> models{"mf"};
constexpr std::size_t factors = 20;

ProcessCache<RatingData> problems;

class RatingTask : public Task {
 public:
  RatingTask(std::shared_ptr<const RatingData> data, MiniBatches batches, std::uint64_t seed)
      : data_(std::move(data)), batches_(std::move(batches)), seed_(seed) {}

  std::size_t parameter_count() const override {
    return (std::size_t{data_->users} + data_->items) * factors;
  }

  /// So that predictions begin around the mean rating.
  void initialise(VectorView parameters) override {
    const auto& ratings = data_->train.ratings;
    const double mean =
        std::accumulate(ratings.begin(), ratings.end(), 0.0) / static_cast<double>(ratings.size());
    const double size = std::sqrt(mean / factors);
    Random random(seed_);
    for (float& x : parameters.as<float>()) {
      x = static_cast<float>(random.uniform(0.5 * size, 1.5 * size));
    }
  }

  double gradient(ConstVectorView parameters, Iteration iteration, VectorView gradient) override {
    const RatingSet& set = data_->train;
    const std::span<const float> x = parameters.as<float>();
    const std::span<float> g = gradient.as<float>();
    std::ranges::fill(g, 0.0F);
    const std::span<const std::uint32_t> batch = batches_.at(iteration);
    const double share = 1 / static_cast<double>(batch.size());
    double sum = 0;
    for (const std::uint32_t i : batch) {
      const double error = predicted(x, set, i) - static_cast<double>(set.ratings[i]);
      sum += error * error;
      const auto slope = static_cast<float>(2 * error * share);
      const std::size_t user = user_at(set, i), item = item_at(set, i);
      for (std::size_t f = 0; f < factors; ++f) {
        g[user + f] += slope * x[item + f];
        g[item + f] += slope * x[user + f];
      }
    }
    return sum * share;
  }

  Evaluation evaluate(ConstVectorView parameters) override {
    const RatingSet& set = data_->test;
    double sum = 0;
    for (std::size_t i = 0; i < set.size(); ++i) {
      const double error =
          predicted(parameters.as<float>(), set, i) - static_cast<double>(set.ratings[i]);
      sum += error * error;
    }
    return {.loss = sum / static_cast<double>(set.size()), .accuracy = {}};
  }

  double iterations_per_epoch() const override { return batches_.iterations_per_epoch(); }
  std::string_view model() const override { return models[0]; }
  /// Large, as a mini-batch says little about any one user or item.
  double default_learning_rate() const override { return 0.5; }

 private:
  static std::size_t user_at(const RatingSet& set, std::size_t i) { return set.users[i] * factors; }
  std::size_t item_at(const RatingSet& set, std::size_t i) const {
    return (std::size_t{data_->users} + set.items[i]) * factors;
  }

  double predicted(std::span<const float> x, const RatingSet& set, std::size_t i) const {
    const auto user = x.subspan(user_at(set, i), factors);
    const auto item = x.subspan(item_at(set, i), factors);
    return std::inner_product(user.begin(), user.end(), item.begin(), 0.0);
  }

  std::shared_ptr<const RatingData> data_;
  MiniBatches batches_;
  std::uint64_t seed_;
};

}  // namespace

std::unique_ptr<Task> make_rating_task(const TaskOptions& options) {
  constexpr std::string_view movielens = "movielens:";
  if (!options.task.starts_with(movielens)) return nullptr;
  choose_model(options, models, models[0]);
  const auto data = problems.get(
      options.task, [&] { return read_movielens(options.task.substr(movielens.size())); });
  MiniBatches batches = make_mini_batches(options, [&] {
    return partition_ratings(data->train.users, options.partition, options.workers, options.seed);
  });
  return std::make_unique<RatingTask>(data, std::move(batches), options.seed);
}

}  // namespace slip
