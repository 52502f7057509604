#include "slipstream/collectives/relay.h"

#include <algorithm>
#include <vector>

#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

std::size_t count_of(std::size_t bytes) { return std::max<std::size_t>(1, bytes / sizeof(float)); }

/// This worker's place in a chain of all.
Neighbourhood chain(const World& world) {
  Neighbourhood n;
  const int left = world.rank() - 1, right = world.rank() + 1;
  // A neighbour on the left has this worker behind its own left one, if it has one.
  if (left >= 0) n.in.push_back({left, left > 0 ? 1 : 0});
  if (right < world.size()) n.in.push_back({right, 0});
  n.out = n.in;
  return n;
}

/// Round after round: send, wait for the messages of the round, hold them.
class Rounds {
 public:
  explicit Rounds(const Bench& bench)
      : bench_(bench),
        relay_(bench.world, bench.name, chain(bench.world), count_of(bench.size), Dtype::float32),
        own_(count_of(bench.size), static_cast<float>(bench.world.rank() + 1)) {}

  void run() {
    relay_.send(round_, view(std::span<const float>(own_))).throw_if_failed();
    const auto arrived = [&] { return relay_.arrived(round_); };
    bench_.world.wait_until(arrived, bench_.world.deadline(), "messages").throw_if_failed();
    relay_.hold(round_++, [](int, Iteration) { return false; }).throw_if_failed();
  }

  /// After as many rounds as there are workers the messages hold the vectors of all others.
  std::uint64_t count_wrong() {
    for (int i = 0; i < bench_.world.size(); ++i) run();
    const auto n = static_cast<float>(bench_.world.size());
    const float expected = n * (n + 1) / 2;  // small whole numbers: exact
    std::uint64_t wrong = relay_.models() == bench_.world.size() ? 0 : own_.size();
    for (std::size_t i = 0; i < own_.size(); ++i) {
      float sum = own_[i];
      for (const ConstVectorView& message : relay_.messages()) sum += message.as<float>()[i];
      wrong += sum != expected;
    }
    return wrong;
  }

 private:
  const Bench& bench_;
  Relay relay_;
  const std::vector<float> own_;
  Iteration round_ = 0;
};

Measurement measure(const Bench& bench) {
  Rounds rounds(bench);
  Measurement result;
  result.times = back_to_back(bench, [&] { rounds.run(); });
  if (bench.options.check) result.wrong = rounds.count_wrong();
  return result;
}

double bytes(double size, const PerfOptions& options) {
  return size * std::min(2, options.workers - 1);
}

}  // namespace

const Test relay_test = {
    "relay", "a round of RelaySum on a chain of all workers", "64K", "16M", measure, bytes, false,
    true};

}  // namespace slip::perf
