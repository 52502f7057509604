#pragma once

#include <memory>

#include "slipstream/runtime/launcher.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// For a process that PMIx has started, one until it ends; null if PMIx has started just this one.
/// Throws Error.
std::shared_ptr<Launcher> pmix_launcher();

}  // namespace slip

#pragma GCC visibility pop
