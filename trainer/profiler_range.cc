#include "slipstream/trainer/profiler_range_internal.h"

#if SLIP_HAVE_NVTX
#include <nvtx3/nvToolsExt.h>

#include <array>
#include <cstddef>
#include <string>
#endif

namespace slip {

#if SLIP_HAVE_NVTX
namespace {

struct Domain {
  nvtxDomainHandle_t handle = nvtxDomainCreateA("slipstream");
  std::array<nvtxStringHandle_t, span_kinds> names;

  Domain() {
    for (int kind = 0; kind < span_kinds; ++kind) {
      const std::string name(to_string(static_cast<SpanKind>(kind)));
      names[static_cast<std::size_t>(kind)] = nvtxDomainRegisterStringA(handle, name.c_str());
    }
  }
};

const Domain& domain() {
  static const Domain made;
  return made;
}

}  // namespace

ProfilerRange::ProfilerRange(SpanKind kind) {
  nvtxEventAttributes_t attributes{};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  attributes.messageType = NVTX_MESSAGE_TYPE_REGISTERED;
  attributes.message.registered = domain().names[static_cast<std::size_t>(kind)];
  id_ = nvtxDomainRangeStartEx(domain().handle, &attributes);
}

ProfilerRange::~ProfilerRange() { nvtxDomainRangeEnd(domain().handle, id_); }

#else

ProfilerRange::ProfilerRange(SpanKind) : id_(0) {}
ProfilerRange::~ProfilerRange() = default;

#endif

}  // namespace slip
