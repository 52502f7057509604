#include "slipstream/perf/bench.h"
#include "slipstream/runtime/tokens.h"

namespace slip::perf {
namespace {

Measurement measure(const Bench& bench) {
  const Neighbour peer{Pair(bench).peer, 0};
  // With one token to spend, who has announced k may enter k + 1 once its peer has announced k.
  Tokens tokens(bench.world, bench.name, {{peer}, {peer}}, 1);
  Measurement result;
  result.operations = 2;  // there and back
  result.times = ping_pong(
      bench, bench.iterations,
      [&](std::int64_t k) { return tokens.announce(static_cast<Iteration>(k)); },
      [&](std::int64_t k) {
        const auto next = static_cast<Iteration>(k) + 1;
        const auto granted = [&] { return tokens.may_enter(next); };
        return bench.world.wait_until(granted, bench.world.deadline(), "a token");
      });
  if (bench.options.check) {
    // After the last round each has announced as many iterations as the other.
    const auto last = static_cast<Iteration>(bench.warm_up + bench.iterations);
    const auto settled = [&] { return tokens.count(0, last) == 1; };
    const bool right =
        bench.world.wait_until(settled, bench.world.deadline(), "the last token").ok();
    result.wrong = right ? 0 : 1;
  }
  return result;
}

double bytes(double size, const PerfOptions&) { return size; }

}  // namespace

const Test token_test = {
    "token", "a token, one way: announce until the other may enter", "8", "8", measure, bytes, true,
    true};

}  // namespace slip::perf
