#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// AD-PSGD: asynchronous decentralized parallel SGD (Lian, Zhang, Zhang, Liu, ICML'18). In every
/// iteration a worker averages with one neighbour, who answers at once, also while it computes.
/// Neighbours are at the distances 1, 3, 5, 9, 17, ... on a ring, whatever the run's graph.
struct AdPsgd {
  static constexpr std::string_view name = "ad_psgd";
  static constexpr std::string_view summary =
      "averaging with one neighbour at a time (AD-PSGD, ICML'18)";

  enum class Mode {
    bipartite,  // the paper's: workers of odd rank ask those of even rank, and both take the mean
    pull,       // everybody asks, and takes the mean with the neighbour's last model by itself
    paper,  // as DivShare (WWW'25) was compared with: random workers exchange models, which queue
  };        // up where links are slow; each takes the mean of what has come

  enum class Order { parallel, serial };

  Mode mode = Mode::bipartite;
  Order order = Order::parallel;  // parallel: exchange while computing; serial: after the gradient
  int local_steps = 1;            // iterations from one exchange to the next
  int fanout = 6;                 // mode=paper: models that an exchange sends and asks for

  Options describe();
  void validate(const RunShape&) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool free_running() const { return true; }
};

}  // namespace slip
