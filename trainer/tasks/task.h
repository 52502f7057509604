#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "slipstream/base/word.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/trainer/evaluation.h"

namespace slip {

/// A learning problem as one worker sees it: parameters in, gradient out. Used by `slip train`, the
/// demo and the experiments; users' own code never needs it.
/// An object belongs to one thread. Draws are pure functions of (seed, rank, iteration).
class Task {
 public:
  virtual ~Task() = default;

  virtual std::size_t parameter_count() const = 0;
  virtual Dtype dtype() const { return Dtype::float32; }

  /// The starting point; the trainer broadcasts rank 0's unless `own_start()`.
  virtual void initialise(VectorView parameters) = 0;
  virtual bool own_start() const { return false; }

  /// Gradient of the mini-batch of `iteration` at `parameters`; returns the mini-batch's mean loss.
  virtual double gradient(ConstVectorView parameters, Iteration iteration, VectorView gradient) = 0;

  /// On the held-out data (or exactly, for the toy tasks).
  virtual Evaluation evaluate(ConstVectorView parameters) = 0;

  /// `--model` as resolved; empty: the task has no models.
  virtual std::string_view model() const { return {}; }

  /// Iterations of this worker in one pass over its share of the data (0: there is no data).
  virtual double iterations_per_epoch() const { return 0; }

  /// A good learning rate where the user names none.
  virtual double default_learning_rate() const = 0;
};

/// What selects and shapes a task; field names are the options' names.
struct TaskOptions {
  // digits | mnist:DIR | cifar10:DIR | movielens:DIR | movielens:DIR/SPLIT | libsvm:FILE |
  // libsvm:train=FILE,test=FILE, and the toy tasks: none | targets | quadratic:... | consensus:...
  std::string task = "digits";
  // Of images softmax | mlp | lenet | gn_lenet | vgg11, of movielens mf, of libsvm svm | logistic;
  // empty: the task's own choice. Toy tasks have none.
  std::string model;
  std::string partition = "iid";  // iid | dirichlet=ALPHA | shards=N; of movielens iid | user
  int batch = 32;
  std::uint64_t seed = 1;
  int rank = 0;
  int workers = 1;
  /// Of images: how many of the held-out ones evaluate() looks at, the first; empty: all.
  std::optional<int> evaluate_samples = {};
};

/// Throws Error (invalid_argument, not_found, io, bad_data, or not_supported for a model in a build
/// without LibTorch) with one line that says what is allowed.
std::unique_ptr<Task> make_task(const TaskOptions& options);

/// What `TaskOptions::task` may be: "digits", "mnist:DIR".
std::span<const std::string_view> task_forms();

}  // namespace slip
