#include "slipstream/transport/verbs/library_internal.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>

namespace slip::verbs {
namespace {

Library load() {
  Library result;
  const char* named = std::getenv("SLIP_VERBS_LIBRARY");
  const std::string file = named != nullptr ? named : "libibverbs.so.1";
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    result.missing = fmt::format(
        "{} cannot be loaded ({}); install libibverbs1 and ibverbs-providers", file, dlerror());
    return result;
  }
#define SLIP_VERBS_FIND(name)                                                  \
  result.name = reinterpret_cast<decltype(result.name)>(dlsym(handle, #name)); \
  if (result.name == nullptr)                                                  \
    result.missing = file + " has no " #name "; install rdma-core 32 or newer";
  SLIP_VERBS_FUNCTIONS(SLIP_VERBS_FIND)
#undef SLIP_VERBS_FIND
  result.ibv_query_qp_data_in_order = reinterpret_cast<decltype(result.ibv_query_qp_data_in_order)>(
      dlsym(handle, "ibv_query_qp_data_in_order"));
  result.ibv_reg_dmabuf_mr =
      reinterpret_cast<decltype(result.ibv_reg_dmabuf_mr)>(dlsym(handle, "ibv_reg_dmabuf_mr"));
  return result;
}

}  // namespace

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

}  // namespace slip::verbs
