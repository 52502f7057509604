#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>

#include "slipstream/base/portable_math.h"
#include "slipstream/trainer/tasks/libsvm_internal.h"
#include "slipstream/trainer/tasks/linear_task_internal.h"
#include "slipstream/trainer/tasks/mini_batches_internal.h"
#include "slipstream/trainer/tasks/process_cache_internal.h"
#include "slipstream/trainer/tasks/settings_internal.h"

namespace slip {
namespace {

/// A loss as a function of the margin y * score.
struct Loss {
  double value;
  double slope;  // of the loss over the margin
};

Loss hinge(double margin) { return margin < 1 ? Loss{1 - margin, -1} : Loss{0, 0}; }

Loss log_loss(double margin) {
  const double e = portable::exp(-std::abs(margin));  // never overflows
  const double value = portable::log1p(e) + std::max(-margin, 0.0);
  return {value, margin > 0 ? -e / (1 + e) : -1 / (1 + e)};
}

struct LinearModel {
  std::string_view name;
  Loss (*loss)(double margin);
  double rate;  // the learning rate for samples of length 1
};

constexpr std::array<LinearModel, 2> models{{{"svm", hinge, 5}, {"logistic", log_loss, 10}}};
constexpr std::array<std::string_view, 2> model_names{models[0].name, models[1].name};

/// What all workers of a process hold once.
struct Problem {
  SparseData data;
  double squared_length = 1;  // of a training sample and its constant 1 for the bias, on average
};

Problem problem_of(SparseData data) {
  const auto& values = data.train.values;
  const double sum = std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
  const auto samples = static_cast<double>(data.train.size());
  return {std::move(data), 1 + sum / samples};
}

ProcessCache<Problem> problems;

class LinearTask : public Task {
 public:
  LinearTask(const LinearModel& model, std::shared_ptr<const Problem> problem, MiniBatches batches)
      : model_(model), problem_(std::move(problem)), batches_(std::move(batches)) {}

  std::size_t parameter_count() const override { return std::size_t{problem_->data.features} + 1; }
  void initialise(VectorView parameters) override {
    std::ranges::fill(parameters.as<float>(), 0.0F);
  }

  double gradient(ConstVectorView parameters, Iteration iteration, VectorView gradient) override {
    const SparseSet& set = problem_->data.train;
    const std::span<float> g = gradient.as<float>();
    std::ranges::fill(g, 0.0F);
    const std::span<const std::uint32_t> batch = batches_.at(iteration);
    const double share = 1 / static_cast<double>(batch.size());
    double sum = 0;
    for (const std::uint32_t row : batch) {
      const double y = sign(set, row);
      const Loss loss = model_.loss(y * score(parameters.as<float>(), set, row));
      sum += loss.value;
      const auto factor = static_cast<float>(y * loss.slope * share);
      if (factor == 0) continue;
      for (std::size_t i = set.begin[row]; i < set.begin[row + 1]; ++i) {
        g[set.columns[i]] += factor * set.values[i];
      }
      g.back() += factor;
    }
    return sum * share;
  }

  Evaluation evaluate(ConstVectorView parameters) override {
    const SparseSet& set = problem_->data.test;
    double loss = 0;
    std::size_t correct = 0;
    for (std::size_t row = 0; row < set.size(); ++row) {
      const double s = score(parameters.as<float>(), set, row);
      loss += model_.loss(sign(set, row) * s).value;
      correct += (s > 0) == (set.labels[row] == 1) ? 1 : 0;
    }
    const auto n = static_cast<double>(set.size());
    return {.loss = loss / n, .accuracy = static_cast<double>(correct) / n};
  }

  double iterations_per_epoch() const override { return batches_.iterations_per_epoch(); }
  std::string_view model() const override { return model_.name; }
  /// Moves the scores equally fast whatever the samples' scale.
  double default_learning_rate() const override { return model_.rate / problem_->squared_length; }

 private:
  static double sign(const SparseSet& set, std::size_t row) {
    return set.labels[row] == 1 ? 1 : -1;
  }

  static double score(std::span<const float> parameters, const SparseSet& set, std::size_t row) {
    double sum = parameters.back();
    for (std::size_t i = set.begin[row]; i < set.begin[row + 1]; ++i) {
      sum += static_cast<double>(parameters[set.columns[i]]) * static_cast<double>(set.values[i]);
    }
    return sum;
  }

  const LinearModel& model_;
  std::shared_ptr<const Problem> problem_;
  MiniBatches batches_;
};

}  // namespace

std::unique_ptr<Task> make_linear_task(const TaskOptions& options) {
  constexpr std::string_view libsvm = "libsvm:";
  if (!options.task.starts_with(libsvm)) return nullptr;
  const std::string_view name = choose_model(options, model_names, "svm");
  const auto problem = problems.get(options.task, [&] {
    return problem_of(read_libsvm(libsvm_files(options.task.substr(libsvm.size()))));
  });
  return std::make_unique<LinearTask>(*std::ranges::find(models, name, &LinearModel::name), problem,
                                      make_mini_batches(options, problem->data.train.labels));
}

}  // namespace slip
