#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/collectives/fragments.h"
#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// DivShare (WWW'25): after some steps of its own a worker cuts its model into fragments and sends
/// each to a few random workers while it computes on, in random order; what is unsent when the next
/// model is there is dropped. So over a slow link come some fragments of a fresh model, and not all
/// of an old one. Fragment by fragment a worker takes the mean of its own and what has come since
/// the last time. Nobody ever waits. Any worker may send to any other, whatever the run's graph.
struct DivShare {
  static constexpr std::string_view name = "div_share";
  static constexpr std::string_view summary =
      "fragments of the model to random workers (DivShare, WWW'25)";

  double fraction = 0.1;  // of the model in a fragment; 1: the whole model
  int fanout = 6;         // workers that a fragment goes to
  bool flush = true;      // drop what is unsent at the end of a round; off: it queues up
  int local_steps = 1;    // iterations of a round
  FragmentMap::Order map = FragmentMap::Order::blocks;

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool tolerates_loss() const { return true; }
  bool free_running() const { return true; }
};

}  // namespace slip
