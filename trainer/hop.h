#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// Hop: heterogeneity-aware decentralized training (Luo, Lin, Zhuo, Qian, ASPLOS'19). Workers
/// average with their graph neighbours through update queues; tokens bound how far a sender may be
/// ahead of its receivers. One mode of four: standard (all options at rest), `backup` >= 1,
/// `staleness` >= 0, `notify_ack`.
struct Hop {
  static constexpr std::string_view name = "hop";
  static constexpr std::string_view summary =
      "neighbour averaging through update queues and tokens (Hop, ASPLOS'19)";

  enum class Order { parallel, serial };

  static constexpr int most = 1'000'000;  // iterations that an option may name

  int max_gap = 5;                    // iterations a sender may be ahead of a receiver
  int backup = 0;                     // updates per iteration that a worker may do without
  std::optional<int> staleness = {};  // iterations that a used update may be old
  int max_jump = 0;      // iterations that a lagging worker may advance at once; 0: no skipping
  int skip_trigger = 2;  // lag behind every receiver from which it jumps
  Order order = Order::parallel;  // parallel: send, then compute; serial: compute, apply, send
  bool notify_ack = false;        // the baseline: one buffer, senders wait for acknowledgements
  bool tokens = true;             // false: nothing bounds the gap; in the simulator only

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
};

}  // namespace slip
