#include <fmt/format.h>

#include <array>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/trainer/tasks/image_task_internal.h"
#include "slipstream/trainer/tasks/linear_task_internal.h"
#include "slipstream/trainer/tasks/mini_batches_internal.h"
#include "slipstream/trainer/tasks/rating_task_internal.h"
#include "slipstream/trainer/tasks/task.h"
#include "slipstream/trainer/tasks/toy_tasks_internal.h"

namespace slip {

std::unique_ptr<Task> make_task(const TaskOptions& options) {
  if (options.workers < 1 || options.rank < 0 || options.rank >= options.workers) {
    throw Error(Code::invalid_argument,
                fmt::format("a task for rank {} of {} workers; allowed are ranks 0 to workers - 1",
                            options.rank, options.workers));
  }
  if (options.batch < 1 || options.batch > largest_batch) {
    throw Error(Code::invalid_argument, fmt::format("--batch: {} is not a number from 1 to {}",
                                                    options.batch, largest_batch));
  }
  if (auto task = make_image_task(options)) return task;
  if (auto task = make_linear_task(options)) return task;
  if (auto task = make_rating_task(options)) return task;

  const std::string_view text = options.task;
  const std::size_t colon = text.find(':');
  const std::string_view settings = colon == text.npos ? "" : text.substr(colon + 1);
  if (auto task = make_toy_task(text.substr(0, colon), settings, options)) {
    if (options.model.empty()) return task;
    throw Error(Code::invalid_argument,
                fmt::format("--model: '{}' with --task {}, which has no models; leave it out",
                            options.model, text));
  }
  throw Error(Code::invalid_argument, fmt::format("--task: '{}' is unknown; allowed are {}", text,
                                                  fmt::join(task_forms(), ", ")));
}

std::span<const std::string_view> task_forms() {
  static constexpr std::array<std::string_view, 9> forms = {
      "digits", "mnist:DIR", "cifar10:DIR",   "movielens:DIR",  "libsvm:FILE",
      "none",   "targets",   "quadratic:...", "consensus:dim=D"};
  return forms;
}

}  // namespace slip
