#include "slipstream/transport/verbs/verbs_transport.h"

#include <utility>

#include "slipstream/transport/verbs/engine_internal.h"

namespace slip {
namespace {

class EngineTransport final : public VerbsTransport {
 public:
  explicit EngineTransport(VerbsOptions options)
      : engine_(std::make_shared<verbs::Engine>(std::move(options))) {}
  ~EngineTransport() override { engine_->close(); }

  std::string_view name() const override { return "verbs"; }
  Region allocate(std::size_t bytes, Bell bell) override { return engine_->allocate(bytes, bell); }
  Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell) override {
    return engine_->share(memory, bytes, bell);
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

std::unique_ptr<VerbsTransport> make_verbs_transport(VerbsOptions options) {
  return std::make_unique<EngineTransport>(std::move(options));
}

}  // namespace slip
