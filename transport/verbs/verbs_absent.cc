// Where libibverbs was not there when this was built.

#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip {
namespace {

constexpr const char* reason = "verbs: not built in (package libibverbs-dev)";

}  // namespace

VerbsSettings verbs_settings_from_environment() { return {}; }

VerbsStatus verbs_status(const VerbsSettings&) { return {reason, {}, {}}; }

std::string verbs_gpu_path(const VerbsOptions&, int) { return std::string("none: ") + reason; }

std::unique_ptr<VerbsTransport> make_verbs_transport(VerbsOptions) {
  throw Error(Code::not_supported, reason);
}

}  // namespace slip
