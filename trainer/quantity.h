#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/base/time.h"

namespace slip {

// Quantities as users write them. `what` names the option or field in the error; each function
// takes the whole of `text` or throws Error(invalid_argument) with what is allowed.

/// A finite number.
double parse_number(std::string_view text, std::string_view what);

/// A number in [0, 1]: "0.125" or "1/8", and "1/n" where `workers` is above 0.
double parse_probability(std::string_view text, std::string_view what, int workers = 0);

/// A number and ns, us, ms or s, "10ms"; not negative, at most 10^9 s.
Duration parse_duration(std::string_view text, std::string_view what);

/// A number and kbit, mbit or gbit (per second, decimal), "60mbit"; above 0. In bytes per second.
double parse_rate(std::string_view text, std::string_view what);

/// "a,b=1,c=2" by its parts; a part without '=' has only a name.
using Fields = std::vector<std::pair<std::string, std::string>>;
/// The parts in order.
Fields parse_fields(std::string_view text);

}  // namespace slip
