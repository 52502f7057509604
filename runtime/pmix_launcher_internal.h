#pragma once

#include <memory>
#include <string>

#include "slipstream/runtime/launcher.h"

namespace slip {

/// Why PMIx cannot be used: not built in, or its library cannot be loaded. Empty: it can.
std::string pmix_unavailable();

/// For a process that PMIx has started; null if it has started just this one. One for the process,
/// as long as somebody holds it. Throws Error.
std::shared_ptr<Launcher> pmix_launcher();

}  // namespace slip
