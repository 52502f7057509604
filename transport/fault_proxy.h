#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "slipstream/base/time.h"
#include "slipstream/transport/delayer.h"
#include "slipstream/transport/transport.h"

namespace slip {

/// Workers that cannot reach the others for a while, nor these them.
struct Partition {
  Time begin{0};
  Time end{0};
  std::vector<int> island;
};

/// The faults that a FaultProxy injects, drawn from a seed.
struct FaultPlan {
  std::uint64_t seed = 1;
  /// Each put is held back with this probability, for up to `max_delay`. Order is kept: what
  /// follows to the same peer waits behind it.
  double delay_probability = 0;
  Duration max_delay{0};
  /// What is put between an island and the others takes effect when the partition ends.
  std::vector<Partition> partitions = {};
  /// After this many puts to `cut_peer` (-1: nobody), every further one fails with peer_lost.
  int cut_peer = -1;
  std::uint64_t cut_after = 0;
  /// Each payload has one byte changed with this probability: a violation of the contract, which
  /// checksums must detect.
  double corrupt_probability = 0;
};

/// Wraps any transport and injects faults below everything else. For tests: it allocates and locks.
class FaultProxy final : public Transport {
 public:
  /// `wake` rings the worker's own doorbell, for `drained`.
  FaultProxy(std::unique_ptr<Transport> inner, const FaultPlan& plan, int rank,
             std::unique_ptr<Delayer> delayer, std::function<void()> wake);
  ~FaultProxy() override;

  std::string_view name() const override;
  Region allocate(std::size_t bytes, Bell bell, int device) override;
  /// Never mapped, so that nothing passes by the proxy.
  RemoteRegion attach(int peer, std::string_view key) override;
  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override;
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override;
  bool copies_at_post() const override { return true; }
  bool drained(int peer) override;
  int progress_fd() const override;
  void arm() override;
  void progress() override;

 private:
  struct State;
  struct Signal {
    std::size_t offset;
    Word word;
  };
  Status post(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
              std::optional<Signal> signal);
  Duration partitioned_for(int peer, Time now) const;

  const int rank_;
  std::shared_ptr<State> state_;
  std::unique_ptr<Delayer> delayer_;
};

}  // namespace slip
