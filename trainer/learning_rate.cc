#include "slipstream/trainer/learning_rate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/portable_math.h"
#include "slipstream/trainer/quantity.h"

namespace slip {
namespace {

constexpr std::string_view what = "--lr-schedule";

struct Schedule {
  enum class Kind { constant, step, cosine } kind = Kind::constant;
  double every = 0;
  double factor = 0.1;
  double over = 0;
  double warmup = 0;

  double operator()(Iteration iteration) const {
    const auto k = static_cast<double>(iteration);
    const double start = warmup > 0 ? std::min(1.0, (k + 1) / warmup) : 1;
    switch (kind) {
      case Kind::constant:
        return start;
      case Kind::step:
        return start * portable::power(factor, static_cast<std::uint64_t>(k / every));
      case Kind::cosine:
        return start * 0.5 * (1 + portable::cos_pi(std::min(1.0, k / over)));
    }
    return start;
  }
};

double positive(std::string_view text) {
  const double value = parse_number(text, what);
  if (value > 0) return value;
  throw Error(Code::invalid_argument, fmt::format("{}: '{}' is not above 0", what, text));
}

}  // namespace

std::function<double(Iteration)> parse_lr_schedule(const std::string& text) {
  const auto refuse = [&] {
    throw Error(Code::invalid_argument,
                fmt::format("{}: '{}' is no schedule; allowed are constant, step:every=100,x=0.1, "
                            "cosine:over=1000, each also with warmup=50",
                            what, text));
  };
  Schedule schedule;
  const std::size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  if (kind == "step") {
    schedule.kind = Schedule::Kind::step;
  } else if (kind == "cosine") {
    schedule.kind = Schedule::Kind::cosine;
  } else if (kind != "constant") {
    refuse();
  }
  if (colon != std::string::npos) {
    for (const auto& [name, value] : parse_fields(std::string_view(text).substr(colon + 1))) {
      if (name == "warmup") {
        schedule.warmup = positive(value);
      } else if (name == "every" && kind == "step") {
        schedule.every = positive(value);
      } else if (name == "x" && kind == "step") {
        schedule.factor = positive(value);
      } else if (name == "over" && kind == "cosine") {
        schedule.over = positive(value);
      } else {
        refuse();
      }
    }
  }
  if ((kind == "step" && schedule.every == 0) || (kind == "cosine" && schedule.over == 0)) refuse();
  return schedule;
}

}  // namespace slip
