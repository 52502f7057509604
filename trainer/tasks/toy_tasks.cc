#include <algorithm>
#include <array>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/settings_internal.h"
#include "slipstream/trainer/tasks/toy_tasks_internal.h"

namespace slip {
namespace {

class NoneTask : public Task {
 public:
  std::size_t parameter_count() const override { return 0; }
  Dtype dtype() const override { return Dtype::float64; }
  void initialise(VectorView) override {}
  double gradient(ConstVectorView, Iteration, VectorView) override { return 0; }
  Evaluation evaluate(ConstVectorView) override { return {}; }
  double default_learning_rate() const override { return 0.1; }
};

class TargetsTask : public Task {
 public:
  TargetsTask(int rank, int workers) : rank_(rank), workers_(workers) {}

  std::size_t parameter_count() const override { return 1; }
  Dtype dtype() const override { return Dtype::float64; }
  void initialise(VectorView parameters) override { parameters.as<double>()[0] = 0; }

  double gradient(ConstVectorView parameters, Iteration, VectorView gradient) override {
    const double distance = parameters.as<double>()[0] - rank_;
    gradient.as<double>()[0] = distance;
    return distance * distance / 2;
  }

  Evaluation evaluate(ConstVectorView parameters) override {
    // The variance of 0 .. n-1 is (n^2 - 1) / 12.
    const double n = workers_;
    const double distance = parameters.as<double>()[0] - (n - 1) / 2;
    return {.loss = (distance * distance + (n * n - 1) / 12) / 2, .accuracy = {}};
  }

  double default_learning_rate() const override { return 0.1; }

 private:
  int rank_;
  int workers_;
};

class ConsensusTask : public Task {
 public:
  ConsensusTask(std::size_t dim, std::uint64_t seed, int rank)
      : dim_(dim), seed_(seed), rank_(rank) {}

  std::size_t parameter_count() const override { return dim_; }
  Dtype dtype() const override { return Dtype::float32; }
  bool own_start() const override { return true; }

  void initialise(VectorView parameters) override {
    Random random(key({seed_, static_cast<std::uint64_t>(rank_)}));
    for (float& x : parameters.as<float>()) x = static_cast<float>(random.uniform(-1, 1));
  }

  double gradient(ConstVectorView, Iteration, VectorView gradient) override {
    // Nothing but us writes to it (a mean of zeros is zero), so once is enough: this task measures
    // what averaging costs.
    if (std::exchange(zeroed_, gradient.data) != gradient.data) {
      std::ranges::fill(gradient.as<float>(), 0.0F);
    }
    return 0;
  }

  Evaluation evaluate(ConstVectorView parameters) override {
    double sum = 0;
    for (const double x : parameters.as<float>()) sum += x * x;
    return {.loss = sum / static_cast<double>(dim_), .accuracy = {}};
  }

  double default_learning_rate() const override { return 0.1; }

 private:
  std::size_t dim_;
  std::uint64_t seed_;
  int rank_;
  const void* zeroed_ = nullptr;
};

}  // namespace

std::unique_ptr<Task> make_none_task() { return std::make_unique<NoneTask>(); }

std::unique_ptr<Task> make_targets_task(int rank, int workers) {
  return std::make_unique<TargetsTask>(rank, workers);
}

std::unique_ptr<Task> make_consensus_task(std::size_t dim, std::uint64_t seed, int rank) {
  return std::make_unique<ConsensusTask>(dim, seed, rank);
}

std::unique_ptr<Task> make_toy_task(std::string_view name, std::string_view settings,
                                    const TaskOptions& options) {
  if (name == "none") {
    parse_settings("--task none", settings, {});
    return make_none_task();
  }
  if (name == "targets") {
    parse_settings("--task targets", settings, {});
    return make_targets_task(options.rank, options.workers);
  }
  if (name == "consensus") {
    std::array<Setting, 1> values{{{"dim", 10, 1, 1e9, true}}};
    parse_settings("--task consensus", settings, values);
    return make_consensus_task(static_cast<std::size_t>(values[0].value), options.seed,
                               options.rank);
  }
  if (name == "quadratic") {
    std::array<Setting, 5> values{{{"dim", 10, 1, 200, true},
                                   {"mu", 0.5, 0.001, 1000},
                                   {"l", 1, 0.001, 1000},
                                   {"zeta2", 0.1, 0, 1e9},
                                   {"r0", 10, 0, 1e9}}};
    parse_settings("--task quadratic", settings, values);
    if (values[1].value > values[2].value) {
      throw Error(Code::invalid_argument, "--task quadratic: mu is above l; allowed is mu <= l");
    }
    return make_quadratic_task({.dim = static_cast<std::size_t>(values[0].value),
                                .mu = values[1].value,
                                .l = values[2].value,
                                .zeta2 = values[3].value,
                                .r0 = values[4].value,
                                .seed = options.seed,
                                .workers = options.workers},
                               options.rank);
  }
  return nullptr;
}

}  // namespace slip
