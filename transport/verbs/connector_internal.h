#pragma once

#include <cstdint>
#include <optional>

#include "slipstream/transport/verbs/buffers_internal.h"
#include "slipstream/transport/verbs/device_internal.h"
#include "slipstream/transport/verbs/window_internal.h"
#include "slipstream/transport/verbs/wire_internal.h"

#pragma GCC visibility push(hidden)

namespace slip::verbs {

/// The door of a worker: a queue pair for unreliable datagrams, at which those peers knock that
/// have a key of one of its regions. What is lost is sent again by whoever needs an answer.
class Connector {
 public:
  /// Throws Error.
  Connector(const Device& device, ibv_cq* completions);

  std::uint32_t number() const { return pair_->qp_num; }

  /// A way to `there`. Throws Error.
  AddressHandle way_to(const Address& there, int rank) const;
  /// Nothing happens where too many are on their way already.
  void send(ibv_ah* way, std::uint32_t knock_qp, const Knock& knock);
  /// What a completion of this queue pair brings, if it is a knock.
  std::optional<Knock> take(const ibv_wc& completion);

 private:
  static constexpr std::uint32_t sends = 32;
  static constexpr std::uint32_t receives = knock_completions - sends;
  static constexpr std::size_t slot_bytes = 256;  // a knock, behind the header of its route

  void post_receive(std::uint32_t slot);
  std::byte* slot(std::uint32_t index) const { return memory_.get() + index * slot_bytes; }

  const Device& device_;
  Memory memory_;  // slots of receives, then of sends
  Registration registration_;
  QueuePair pair_;
  std::uint64_t posted_ = 0;
  std::uint64_t completed_ = 0;
};

}  // namespace slip::verbs

#pragma GCC visibility pop
