#include "slipstream/gpu/nccl_library_internal.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "slipstream/gpu/nccl.h"

namespace slip::gpu {
namespace {

// Communicators that do not block, and are ended without their peers, came with 2.14; it took
// until here to make them work in groups.
constexpr int oldest = NCCL_VERSION(2, 18, 0);
static_assert(NCCL_VERSION_CODE >= oldest);

std::string version_text(int code) {  // of 2.9 and newer
  return fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

Status load(NcclLibrary& library) {
  const char* named = std::getenv("SLIP_NCCL_LIBRARY");
  const std::string file = named != nullptr ? named : "libnccl.so.2";
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return {Code::not_supported,
            fmt::format("{} cannot be loaded ({}); install NCCL", file, dlerror())};
  }
#define SLIP_NCCL_FIND(name)                                                                 \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, #name));             \
  if (library.name == nullptr) {                                                             \
    return {Code::not_supported, fmt::format("{} has no {}; install NCCL {} or newer", file, \
                                             #name, version_text(oldest))};                  \
  }
  SLIP_NCCL_FUNCTIONS(SLIP_NCCL_FIND)
#undef SLIP_NCCL_FIND
  if (library.ncclGetVersion(&library.version) != ncclSuccess || library.version < oldest) {
    return {Code::not_supported,
            fmt::format("{} is too old: NCCL {}; install NCCL {} or newer", file,
                        version_text(library.version), version_text(oldest))};
  }
  return {};
}

}  // namespace

const NcclLibrary& nccl_library() {
  static const NcclLibrary loaded = [] {
    NcclLibrary result;
    result.usable = load(result);
    return result;
  }();
  return loaded;
}

Status nccl_usable() { return nccl_library().usable; }

std::string nccl_version() {
  return nccl_usable() ? version_text(nccl_library().version) : std::string();
}

}  // namespace slip::gpu
