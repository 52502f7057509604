#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// Stochastic gradient push (Assran, Loizou, Ballas, Rabbat, ICML'19) on the time-varying
/// exponential graph, whatever the run's: after its step a worker sends to the one 2^e ranks on and
/// takes the mean with what comes from 2^e ranks back, e = 0, 1, 2, ... in turn. Everybody sends
/// and gets one model at a time, so the weights of push-sum are all 1 and need not travel.
struct Sgp {
  static constexpr std::string_view name = "sgp";
  static constexpr std::string_view summary =
      "averaging with one peer after the other (SGP, ICML'19)";

  enum class Order {
    regular,   // e = 0, 1, 2, ...
    relaysum,  // as in the code of RelaySum's experiments: e = i (averages + j) mod log2 n
  };

  int averages = 2;  // in each iteration; RelaySum's experiments make 2
  Order order = Order::regular;

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool tolerates_loss() const { return true; }
};

}  // namespace slip
