#include "slipstream/transport/verbs/verbs_transport.h"

#include <fmt/format.h>

#include <utility>

#include "slipstream/gpu/memory.h"
#include "slipstream/transport/verbs/engine_internal.h"
#include "slipstream/transport/verbs/gpu_memory_internal.h"

namespace slip {
namespace {

class OverVerbs final : public EngineTransport<VerbsTransport, verbs::Engine> {
 public:
  using EngineTransport::EngineTransport;
  std::string_view name() const override { return "verbs"; }
  std::optional<Region> share_gpu(const Region& region, Bell bell, std::shared_ptr<Landing> landing,
                                  std::string* why) override {
    return engine_->share_gpu(region, bell, std::move(landing), why);
  }
  std::shared_ptr<void> hold_source(const RemoteRegion& to, const std::byte* from,
                                    std::size_t bytes) override {
    return engine_->hold_source(to, from, bytes);
  }
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

std::string verbs_gpu_path(const VerbsOptions& options, int gpu) {
  try {
    constexpr std::size_t bytes = std::size_t{2} << 20;
    const verbs::Device device(options.settings, options.nearest);
    const auto memory = gpu::allocate(gpu, bytes);
    return describe(verbs::register_gpu(device, gpu, memory.get(), bytes).choice);
  } catch (const Error& error) {
    return fmt::format("none: {}", error.what());
  }
}

std::unique_ptr<VerbsTransport> make_verbs_transport(VerbsOptions options) {
  return std::make_unique<OverVerbs>(std::make_shared<verbs::Engine>(std::move(options)));
}

}  // namespace slip
