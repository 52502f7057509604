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
#ifdef __SANITIZE_THREAD__
  // UCX's hooks of memory calls run when a thread ends, after ThreadSanitizer has let go of it.
  setenv("UCX_MEM_MMAP_HOOK_MODE", "none", keep);
#endif
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
