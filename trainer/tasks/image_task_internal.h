#pragma once

#include <memory>

#include "slipstream/trainer/tasks/task.h"

namespace slip {

/// The classification of images by `options.model`, if `options.task` is `digits`, `mnist:DIR` or
/// `cifar10:DIR`; else null. Mini-batches come from this rank's share of the training set;
/// evaluate() goes over the whole test set. Images and shares are held once per process. Throws as
/// make_task().
std::unique_ptr<Task> make_image_task(const TaskOptions& options);

}  // namespace slip
