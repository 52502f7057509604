#include "slipstream/transport/verbs/verbs_transport.h"

#include <fmt/format.h>

#include <utility>

#include "slipstream/gpu/memory.h"
#include "slipstream/transport/verbs/engine_internal.h"
#include "slipstream/transport/verbs/gpu_memory_internal.h"

namespace slip {
namespace {

class EngineTransport final : public VerbsTransport {
 public:
  explicit EngineTransport(VerbsOptions options)
      : engine_(std::make_shared<verbs::Engine>(std::move(options))) {}
  ~EngineTransport() override { engine_->close(); }

  std::string_view name() const override { return "verbs"; }
  Region allocate(std::size_t bytes, Bell bell, int device) override {
    return engine_->allocate(bytes, bell, device);
  }
  using NetworkTransport::share;
  Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
               std::shared_ptr<Landing> landing) override {
    return engine_->share(memory, bytes, bell, std::move(landing));
  }
  std::optional<Region> share_gpu(const Region& region, Bell bell, std::shared_ptr<Landing> landing,
                                  std::string* why) override {
    return engine_->share_gpu(region, bell, std::move(landing), why);
  }
  RemoteRegion attach(int peer, std::string_view key) override {
    return engine_->attach(peer, key);
  }

  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override {
    if (!to.contains(offset, bytes)) [[unlikely]]
      return out_of_bounds(to, offset, bytes);
    return engine_->put(to, offset, from, bytes, nullptr);
  }
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override {
    if (!to.contains(offset, bytes)) [[unlikely]]
      return out_of_bounds(to, offset, bytes);
    if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) [[unlikely]]
      return out_of_bounds(to, word_offset, sizeof word);
    const verbs::Signal signal{word_offset, word};
    return engine_->put(to, offset, from, bytes, &signal);
  }

  bool copies_at_post() const override { return false; }
  bool drained(int peer) override { return engine_->drained(peer); }
  void disconnect(int peer) override { engine_->disconnect(peer); }
  std::string description() const override { return engine_->description(); }
  int progress_fd() const override { return engine_->progress_fd(); }
  void arm() override { engine_->arm(); }
  void progress() override { engine_->progress(); }
  void drive() override { engine_->drive(); }
  void rest() override { engine_->rest(); }
  void on_lost(std::function<void(const Status&)> lost) override {
    engine_->on_lost(std::move(lost));
  }
  void announce_by(std::shared_ptr<Announcer> announcer) override {
    engine_->announce_by(std::move(announcer));
  }
  void ring(Bell bell) override { engine_->wake(bell); }
  std::shared_ptr<Doorbell> doorbell() const override { return engine_->doorbell(); }

 private:
  const std::shared_ptr<verbs::Engine> engine_;
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

std::string verbs_gpu_path(const VerbsSettings& settings, int gpu) {
  try {
    constexpr std::size_t bytes = std::size_t{2} << 20;
    const verbs::Device device(settings, {});
    const auto memory = gpu::allocate(gpu, bytes);
    return describe(verbs::register_gpu(device, gpu, memory.get(), bytes).choice);
  } catch (const Error& error) {
    return fmt::format("none: {}", error.what());
  }
}

std::unique_ptr<VerbsTransport> make_verbs_transport(VerbsOptions options) {
  return std::make_unique<EngineTransport>(std::move(options));
}

}  // namespace slip
