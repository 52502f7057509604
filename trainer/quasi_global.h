#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// Gossip with quasi-global momentum (QG-DSGDm; Lin, Karimireddy, Stich, Jaggi, ICML'21): the local
/// step has Nesterov momentum, whose buffer follows the averaged model and not the worker's own
/// gradients. Without momentum it is gossip after the step, the D-PSGD that RelaySum compares with.
/// A user's own optimizer keeps its momentum to itself.
struct QuasiGlobal {
  static constexpr std::string_view name = "quasi_global";
  static constexpr std::string_view summary =
      "gossip with quasi-global momentum (QG-DSGDm, ICML'21)";

  Options describe() { return {}; }
  void validate(const RunShape&) const {}
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool tolerates_loss() const { return true; }
};

}  // namespace slip
