// Where UCX was not there when this was built.

#include "slipstream/transport/ucx/ucx_transport.h"

namespace slip {

std::string ucx_unavailable() { return "not built in (package libucx-dev)"; }
std::string ucx_version() { return {}; }

std::unique_ptr<NetworkTransport> make_ucx_transport(UcxOptions) {
  throw Error(Code::not_supported, "UCX is not available: " + ucx_unavailable());
}

}  // namespace slip
