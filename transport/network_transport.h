#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "slipstream/transport/transport.h"

namespace slip {

/// Takes what a network has put into memory that is not where it belongs. Called in the order in
/// which it came, by whoever drives the network, and must not wait.
class Landing {
 public:
  virtual ~Landing() = default;
  /// Payload has come, and is in the network's own memory.
  virtual void place(std::size_t offset, const std::byte* from, std::size_t bytes) = 0;
  /// Payload has come, and been written where it was shared.
  virtual void came(std::size_t offset, std::size_t bytes) = 0;
  /// A word has come behind it, which is to be stored and rung for when the payload is in place.
  virtual void announce(std::size_t offset, Word word) = 0;
};

/// Stores words that a network has received, in the order in which they came, each behind all that
/// came before it and rings. Called as Landing is.
class Announcer {
 public:
  virtual ~Announcer() = default;
  /// `memory` keeps `at`; null: its owner does, until the call behind what came before is done.
  virtual void announce(const std::shared_ptr<std::byte>& memory, Word* at, Word word,
                        Bell bell) = 0;
};

/// A transport that reaches other hosts. It is driven by a progress thread, and it notices by
/// itself that a peer is lost: a put of nothing only says whether it is.
class NetworkTransport : public Transport {
 public:
  /// Makes a region of another transport reachable through this one, as long as its memory lives;
  /// its key here. Throws Error.
  virtual Region share(const Region& region, Bell bell);

  /// The same for memory of a GPU, where the network's devices write it by themselves. Else
  /// nothing, and `why` says why not.
  virtual std::optional<Region> share_gpu(const Region& region, Bell bell,
                                          std::shared_ptr<Landing> landing, std::string* why);

  /// The same for memory of the host. Where there is a `landing` it is told of all that comes, and
  /// words are its to store. Throws Error.
  virtual Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
                       std::shared_ptr<Landing> landing) = 0;

  /// Where the network's devices read memory of a GPU by themselves: keeps `from`, which lies in a
  /// region, for one put to `to` that is posted later. It may be written again as the network's
  /// other sources may. Null: what is put has to be in memory of the host.
  virtual std::shared_ptr<void> hold_source(const RemoteRegion& to, const std::byte* from,
                                            std::size_t bytes);

  /// From now on words that come into regions without a landing are stored by `announcer`, too.
  virtual void announce_by(std::shared_ptr<Announcer> announcer) = 0;

  /// `lost` is called once for each peer that is lost from now on, by whoever drives; null: nobody
  /// is told.
  virtual void on_lost(std::function<void(const Status& why)> lost) = 0;

  /// Gives a peer up. When it returns puts to it fail, and what it has sent or will send from this
  /// life of it reaches no memory here that is used again: over verbs none at all, over UCX none
  /// but that of regions which it has attached to, which stays reserved after they are freed. Its
  /// next life may connect. Nobody is told of the loss.
  virtual void disconnect(int peer) = 0;

  /// Drives as `progress` does: for a thread that waits in a put, on which others may depend.
  virtual void attend() = 0;

  /// Wakes whoever sleeps until a word comes. From any thread.
  virtual void ring(Bell bell) = 0;

  virtual std::shared_ptr<Doorbell> doorbell() const = 0;
};

}  // namespace slip
