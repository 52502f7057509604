#include "slipstream/transport/verbs/verbs_transport.h"

#include <utility>

#include "slipstream/transport/verbs/engine_internal.h"

namespace slip {
namespace {

class OverVerbs final : public EngineTransport<VerbsTransport, verbs::Engine> {
 public:
  using EngineTransport::EngineTransport;
  std::string_view name() const override { return "verbs"; }
  std::string description() const override { return engine_->description(); }
};

}  // namespace

VerbsStatus verbs_status(const VerbsSettings& settings) {
  try {
    const verbs::Device device(settings, {});
    return {{}, to_string(device.choice().link), describe(device.choice())};
  } catch (const Error& error) {
    return {error.what(), {}, {}};
  }
}

std::unique_ptr<VerbsTransport> make_verbs_transport(VerbsOptions options) {
  return std::make_unique<OverVerbs>(std::make_shared<verbs::Engine>(std::move(options)));
}

}  // namespace slip
