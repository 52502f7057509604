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

  virtual std::shared_ptr<Doorbell> doorbell() const = 0;
};

}  // namespace slip
