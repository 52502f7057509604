#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

#include "slipstream/collectives/group_generator.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// Prague, also known as Ripples: heterogeneity-aware asynchronous decentralized training (Luo, He,
/// Zhuo, Qian, ASPLOS'20). After its own step a worker replaces its parameters by the mean of a
/// group; groups are any workers, formed so that fast workers seldom wait for slow ones.
struct Prague {
  static constexpr std::string_view name = "prague";
  static constexpr std::string_view summary =
      "averaging in groups that are formed on the way (Prague, ASPLOS'20)";

  enum class Generator { static_, random, buffer, division, inter_intra };
  /// When a worker averages: after its own step, as the paper has it, or while it computes the
  /// gradient, of the model that goes into the average. Both preserve the mean.
  enum class Order { serial, parallel };

  Generator generator = Generator::division;  // which workers make a group
  int group_size = 3;                         // workers of a group, where it is not a whole host
  std::optional<int> filter = {};  // averages a worker may lag behind one who asks; empty: any
  int section = 1;                 // iterations from one average to the next
  bool service = true;  // rank 0 forms groups on request; else they follow from seed and section
  Order order = Order::serial;
  Algorithm algorithm = Algorithm::automatic;  // how groups average
  Wire wire = Wire::exact;                     // what a transport carries of it

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool free_running() const;
};

}  // namespace slip
