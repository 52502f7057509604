#pragma once

#include "slipstream.h"
#include "slipstream/base/error.h"
#include "slipstream/runtime/world.h"

// Between C++ and the C API: for libraries that join worlds by means of their own and for programs
// that mix both. Handles are freed by the C API's functions.

namespace slip {

/// A handle of `world`, for slip_world_free.
slip_world* to_c(World&& world);

/// The world behind a handle, which keeps it. `world` is not null.
World& from_c(slip_world* world);

/// What the options say; the defaults for null. Throws Error(invalid_argument).
WorldOptions from_c(const slip_world_options* options);

/// Makes `status` what slip_last_error() tells of in this thread, and returns its code.
slip_status to_c(const Status& status) noexcept;

/// The same for the exception that is being handled, whatever it is.
slip_status exception_to_c() noexcept;

/// Runs `body`, which returns nothing or a Status, and lets no exception out.
template <class Body>
slip_status guarded(Body&& body) noexcept {
  try {
    if constexpr (requires { Status(body()); }) {
      const Status status = body();
      return status ? SLIP_OK : to_c(status);
    } else {
      body();
      return SLIP_OK;
    }
  } catch (...) {
    return exception_to_c();
  }
}

}  // namespace slip
