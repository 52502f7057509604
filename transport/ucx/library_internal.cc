#include "slipstream/transport/ucx/library_internal.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>

namespace slip::ucx {
namespace {

Library load() {
  // What the user has set holds.
  constexpr int keep = 0;
  setenv("UCX_HANDLE_ERRORS", "none", keep);
  setenv("UCX_ERROR_SIGNALS", "", keep);
  setenv("UCX_LOG_LEVEL", "fatal", keep);
  Library result;
  void* handle = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    result.missing = fmt::format("libucp.so.0 cannot be loaded ({}); install libucx0", dlerror());
    return result;
  }
#define SLIP_UCX_FIND(name)                                                    \
  result.name = reinterpret_cast<decltype(result.name)>(dlsym(handle, #name)); \
  if (result.name == nullptr)                                                  \
    result.missing = "libucp.so.0 has no " #name                               \
                     "; install a newer "                                      \
                     "UCX";
  SLIP_UCX_FUNCTIONS(SLIP_UCX_FIND)
#undef SLIP_UCX_FIND
  return result;
}

}  // namespace

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

}  // namespace slip::ucx
