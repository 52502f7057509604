#pragma once

#include <memory>

#include "slipstream/trainer/tasks/task.h"

namespace slip {

/// The classification of sparse samples by a linear model, if `options.task` is `libsvm:...`; else
/// null. The score of a sample is w.x + b, its class y is +1 or -1, and the loss is
///   svm       max(0, 1 - y score)
///   logistic  log(1 + exp(-y score))
/// Parameters are w, then b, in float32, and start at 0; the gradient is written in full.
/// Regularisation is the trainer's weight decay, which b has, too. Samples and shares are held once
/// per process. Throws as make_task().
std::unique_ptr<Task> make_linear_task(const TaskOptions& options);

}  // namespace slip
