#pragma once

#include <memory>

#include "slipstream/trainer/tasks/task.h"

namespace slip {

/// Matrix factorisation (`mf`) of ratings, if `options.task` is `movielens:DIR` or
/// `movielens:DIR/SPLIT`; else null. Each user and each item has 20 factors, and a rating is
/// predicted as the product of theirs; the loss is the mean squared error, there is no accuracy.
/// Mini-batches come from this rank's share of the ratings. Throws as make_task().
std::unique_ptr<Task> make_rating_task(const TaskOptions& options);

}  // namespace slip
