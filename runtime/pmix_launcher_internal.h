#pragma once

#include <memory>
#include <string>

#include "slipstream/runtime/launcher.h"

namespace slip {

/// Why PMIx cannot be used: not built in, or its library cannot be loaded. Empty: it can.
std::string pmix_unavailable();

/// For a process that PMIx has started, one until it ends; null if PMIx has started just this one.
/// Throws Error.
std::shared_ptr<Launcher> pmix_launcher();

}  // namespace slip
