#pragma once

#include <memory>

#include "slipstream/tools/slip/command.h"

namespace slip::cli {

std::unique_ptr<Command> make_info_command();

}  // namespace slip::cli
