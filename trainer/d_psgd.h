#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/trainer/hop.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// D-PSGD (Lian et al., NeurIPS'17): x_{k+1,i} = sum_j W_ij x_{k,j} - lr g(x_{k,i}), averaging with
/// the neighbours while the gradient is computed. In one-sided writes that is Hop's standard mode
/// with the smallest gap: nobody is more than one iteration ahead of a receiver.
struct DPsgd {
  static constexpr std::string_view name = "d_psgd";
  static constexpr std::string_view summary =
      "neighbour averaging in lockstep (D-PSGD, NeurIPS'17)";

  Options describe() { return {}; }
  void validate(const RunShape& shape) const { in_lockstep().validate(shape); }
  std::size_t memory(const RunShape& shape) const { return in_lockstep().memory(shape); }
  std::unique_ptr<Protocol> make(const Run& run) const { return in_lockstep().make(run); }
  bool runs_on_gpu() const { return true; }

 private:
  static Hop in_lockstep() { return {.max_gap = 1}; }
};

}  // namespace slip
