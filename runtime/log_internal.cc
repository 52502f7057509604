#include "slipstream/runtime/log_internal.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <string>

namespace slip {
namespace {

constexpr const char* name = "slipstream";

spdlog::level::level_enum level_of_environment() {
  const char* const text = std::getenv("SLIP_LOG_LEVEL");
  const std::string level = text != nullptr ? text : "";
  const auto known = spdlog::level::from_str(level);  // `off`, too, where it knows none
  return known == spdlog::level::off && level != "off" ? spdlog::level::warn : known;
}

std::shared_ptr<spdlog::logger> make_logger() {
  auto logger = std::make_shared<spdlog::logger>(
      name, std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(level_of_environment());
  return logger;
}

}  // namespace

std::shared_ptr<spdlog::logger> log() {
  static const std::shared_ptr<spdlog::logger> ours = make_logger();
  auto of_the_program = spdlog::get(name);
  return of_the_program ? of_the_program : ours;
}

}  // namespace slip
