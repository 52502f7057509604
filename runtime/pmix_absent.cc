#include "slipstream/base/error.h"
#include "slipstream/runtime/pmix_launcher_internal.h"

// Stands for pmix_launcher_internal.cc where Slipstream is built without PMIx.
namespace slip {

std::string pmix_unavailable() { return "not built in"; }

std::shared_ptr<Launcher> pmix_launcher() {
  throw Error(Code::not_supported,
              "PMIx has started this worker (PMIX_NAMESPACE is set), and this Slipstream is built "
              "without it; build with SLIP_WITH_PMIX, or set SLIP_RENDEZVOUS");
}

}  // namespace slip
