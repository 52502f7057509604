#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "slipstream/base/function_ref.h"
#include "slipstream/runtime/wait.h"
#include "slipstream/runtime/world.h"
#include "slipstream/transport/network_transport.h"

namespace slip::testing {

/// A worker with a transport of its own, which alone tells it of losses. Its world's is shared
/// memory and only introduces it.
class End {
 public:
  /// `rank` is the world's unless it plays another life of one.
  End(World& world, std::unique_ptr<Transport> made, int rank = -1)
      : world(world),
        transport(std::move(made)),
        network(dynamic_cast<NetworkTransport*>(transport.get())),
        rank_(rank < 0 ? world.rank() : rank),
        doorbell_(network != nullptr ? network->doorbell() : nullptr) {
    using namespace std::chrono_literals;
    if (network == nullptr) return;
    waiter_ = std::make_unique<RealWaiter>(doorbell_, std::make_shared<RealClock>(), abort_, 50us,
                                           transport.get(), 1h);
    network->on_lost([this](const Status& why) {
      abort_->abort(why);
      waiter_->wake();
    });
    drive_again();
  }
  ~End() {
    driving_.reset();
    if (network != nullptr) network->on_lost(nullptr);
  }
  End(const End&) = delete;
  End& operator=(const End&) = delete;

  Region allocate(const std::string& name, std::size_t bytes) {
    Region region = transport->allocate(bytes, Bell::worker);
    world.bootstrap().put(name + "/" + std::to_string(rank_), region.key());
    return region;
  }
  RemoteRegion attach(int peer, const std::string& name) {
    return transport->attach(
        peer, world.bootstrap().get(name + "/" + std::to_string(peer), std::chrono::seconds(30)));
  }
  /// Until it holds, or a peer is lost.
  Status wait(FunctionRef<bool()> condition) {
    return waiter_->wait(condition, RealClock().now() + std::chrono::seconds(60));
  }
  /// Drives no longer: what arrives is left lying.
  void stop_driving() { driving_.reset(); }
  void drive_again() {
    driving_ = world.progress().serve(*transport, [] { return false; });
  }

  World& world;
  const std::unique_ptr<Transport> transport;
  NetworkTransport* const network;  // null: shared memory

 private:
  const int rank_;
  const std::shared_ptr<Doorbell> doorbell_;
  const std::shared_ptr<AbortToken> abort_ = std::make_shared<AbortToken>();
  std::unique_ptr<RealWaiter> waiter_;
  std::unique_ptr<Progress::Handle> driving_;
};

}  // namespace slip::testing
