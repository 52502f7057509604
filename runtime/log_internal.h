#pragma once

#include <spdlog/logger.h>

#include <memory>

#pragma GCC visibility push(hidden)

namespace slip {

/// Where the library logs: a logger of the program's own named "slipstream", if spdlog's registry
/// has one, else ours, which writes to stderr from the level of SLIP_LOG_LEVEL on ("warn"). The
/// program's default logger is left alone. Thread-safe; takes a lock.
std::shared_ptr<spdlog::logger> log();

}  // namespace slip

#pragma GCC visibility pop
