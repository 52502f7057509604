#pragma once

#include <functional>
#include <string>

#include "slipstream/base/word.h"

namespace slip {

/// What `--lr-schedule` takes, as a factor of the learning rate: `constant`;
/// `step:every=100,x=0.1` (times x after every so many iterations); `cosine:over=1000` (from 1 to 0
/// over so many iterations, then 0); each also with `warmup=50` (linear from 0). Throws
/// Error(invalid_argument).
std::function<double(Iteration)> parse_lr_schedule(const std::string& text);

}  // namespace slip
