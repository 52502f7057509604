#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "slipstream/transport/transport.h"

namespace slip {

/// A transport that reaches other hosts. It is driven by a progress thread, and it notices by
/// itself that a peer is lost.
class NetworkTransport : public Transport {
 public:
  /// Makes memory of another transport reachable through this one, as long as `memory` lives; its
  /// key here.
  virtual Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell) = 0;

  /// `lost` is called once for each peer that is lost from now on, by whoever drives; null: nobody
  /// is told.
  virtual void on_lost(std::function<void(const Status& why)> lost) = 0;

  /// Gives a peer up. When it returns puts to it fail, and what it has sent or will send from this
  /// life of it reaches no memory here that is used again: over verbs none at all, over UCX none
  /// but that of regions which it has attached to, which stays reserved after they are freed. Its
  /// next life may connect. Nobody is told of the loss.
  virtual void disconnect(int peer) = 0;

  virtual std::shared_ptr<Doorbell> doorbell() const = 0;
};

}  // namespace slip
