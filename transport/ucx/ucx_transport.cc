#include "slipstream/transport/ucx/ucx_transport.h"

#include <utility>

#include "slipstream/transport/ucx/engine_internal.h"

namespace slip {
namespace {

class OverUcx final : public EngineTransport<NetworkTransport, ucx::Engine> {
 public:
  using EngineTransport::EngineTransport;
  std::string_view name() const override { return "ucx"; }
};

}  // namespace

std::string ucx_unavailable() { return ucx::library().missing; }

std::string ucx_version() {
  return ucx_unavailable().empty() ? ucx::library().ucp_get_version_string() : "";
}

std::unique_ptr<NetworkTransport> make_ucx_transport(UcxOptions options) {
  auto engine = std::make_shared<ucx::Engine>(std::move(options));
  engine->start();
  return std::make_unique<OverUcx>(std::move(engine));
}

}  // namespace slip
