#pragma once

#include <span>
#include <string_view>

#include "slipstream/trainer/tasks/task.h"

namespace slip {

/// One number that a task or partition takes: its default, its range, and where it goes.
struct Setting {
  std::string_view key;
  double value;  // the default; replaced by what the user wrote
  double low, high;
  bool whole = false;
};

/// Reads "key=value,key=value" into `settings`; `owner` ("--task quadratic") begins the error line.
/// Throws Error(invalid_argument) that names the key or value and what is allowed.
void parse_settings(std::string_view owner, std::string_view text, std::span<Setting> settings);

/// `text` as the value of `setting`; the same errors.
double parse_setting(std::string_view owner, std::string_view text, const Setting& setting);

/// Which of `models` a task takes: `options.model`, or `otherwise` where that is empty. Throws
/// Error(invalid_argument), which lists them.
std::string_view choose_model(const TaskOptions& options, std::span<const std::string_view> models,
                              std::string_view otherwise);

}  // namespace slip
