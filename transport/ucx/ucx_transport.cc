#include "slipstream/transport/ucx/ucx_transport.h"

#include <utility>

#include "slipstream/transport/ucx/engine_internal.h"

namespace slip {
namespace {

class EngineTransport final : public NetworkTransport {
 public:
  explicit EngineTransport(UcxOptions options)
      : engine_(std::make_shared<ucx::Engine>(std::move(options))) {
    engine_->start();
  }
  ~EngineTransport() override { engine_->close(); }

  std::string_view name() const override { return "ucx"; }
  Region allocate(std::size_t bytes, Bell bell, int device) override {
    return engine_->allocate(bytes, bell, device);
  }
  using NetworkTransport::share;
  Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
               std::shared_ptr<Landing> landing) override {
    return engine_->share(memory, bytes, bell, std::move(landing));
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
    ucx::Message signal{};
    signal.word_offset = word_offset;
    signal.word = word;
    return engine_->put(to, offset, from, bytes, &signal);
  }

  bool copies_at_post() const override { return false; }
  bool drained(int peer) override { return engine_->drained(peer); }
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
  const std::shared_ptr<ucx::Engine> engine_;
};

}  // namespace

std::string ucx_unavailable() { return ucx::library().missing; }

std::string ucx_version() {
  return ucx_unavailable().empty() ? ucx::library().ucp_get_version_string() : "";
}

std::unique_ptr<NetworkTransport> make_ucx_transport(UcxOptions options) {
  return std::make_unique<EngineTransport>(std::move(options));
}

}  // namespace slip
