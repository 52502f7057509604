#include <exception>
#include <new>
#include <string>

#include "slipstream.h"
#include "slipstream/c_api/handles_internal.h"

namespace slip {
namespace {

const Status& out_of_memory() {
  static const Status status(Code::out_of_memory, "out of memory");
  return status;
}

/// Of this thread's last call that failed. Copying a Status does not throw.
Status& last() {
  thread_local Status status;
  return status;
}

}  // namespace

Status c_api::last_failure() { return last(); }

slip_status to_c(const Status& status) noexcept {
  if (!status) last() = status;
  return static_cast<slip_status>(status.code());
}

slip_status exception_to_c() noexcept {
  try {
    try {
      throw;
    } catch (const Error& error) {
      return to_c(error.status());
    } catch (const std::bad_alloc&) {
      return to_c(out_of_memory());
    } catch (const std::exception& error) {
      return to_c(Status(Code::aborted, error.what()));
    } catch (...) {
      return to_c(Status(Code::aborted, "a callback threw what is no std::exception"));
    }
  } catch (...) {  // no memory for the message
    return to_c(out_of_memory());
  }
}

}  // namespace slip

int slip_damage(slip_status status) { return status / 100; }

const char* slip_status_name(slip_status status) {
  return slip::to_string(static_cast<slip::Code>(status)).data();
}

const char* slip_last_error(void) { return slip::last().message().c_str(); }
int slip_last_error_peer(void) { return slip::last().peer(); }
const char* slip_version(void) { return SLIP_VERSION; }
