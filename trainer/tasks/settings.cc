#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "slipstream/base/error.h"
#include "slipstream/trainer/quantity.h"
#include "slipstream/trainer/tasks/settings_internal.h"

namespace slip {

double parse_setting(std::string_view owner, std::string_view text, const Setting& setting) {
  const std::string what = fmt::format("{}: {}", owner, setting.key);
  const double value = parse_number(text, what);
  if (value < setting.low || value > setting.high ||
      (setting.whole && value != std::floor(value))) {
    throw Error(Code::invalid_argument,
                fmt::format("{}: '{}' is not a {}number from {:g} to {:g}", what, text,
                            setting.whole ? "whole " : "", setting.low, setting.high));
  }
  return value;
}

void parse_settings(std::string_view owner, std::string_view text, std::span<Setting> settings) {
  if (text.empty()) return;
  for (const auto& [key, value] : parse_fields(text)) {
    const auto setting = std::ranges::find(settings, key, &Setting::key);
    if (setting == settings.end()) {
      std::string allowed;
      for (const Setting& s : settings)
        allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", s.key);
      throw Error(Code::invalid_argument,
                  fmt::format("{} has no setting '{}'; allowed are {}", owner, key,
                              allowed.empty() ? "none" : allowed));
    }
    setting->value = parse_setting(owner, value, *setting);
  }
}

std::string_view choose_model(const TaskOptions& options, std::span<const std::string_view> models,
                              std::string_view otherwise) {
  if (options.model.empty()) return otherwise;
  const auto model = std::ranges::find(models, options.model);
  if (model != models.end()) return *model;
  throw Error(Code::invalid_argument,
              fmt::format("--model: '{}' is unknown; allowed with --task {} are {}", options.model,
                          options.task, fmt::join(models, ", ")));
}

}  // namespace slip
