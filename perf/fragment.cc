#include <algorithm>
#include <memory>

#include "slipstream/collectives/latest_slots.h"
#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

/// Fragments that go to and fro. Each is taken and its slot given back before the next is sent.
class Fragments {
 public:
  explicit Fragments(const Bench& bench)
      : bench_(bench),
        pair_(bench),
        slots_(bench.world, bench.name, {{{pair_.peer, 0}}, {{pair_.peer, 0}}},
               {.bytes = bench.size}),
        source_(std::make_unique<std::byte[]>(bench.size)) {}

  bool starts() const { return pair_.starts; }

  Status send() { return slots_.put(0, 0, sent_++, source_.get(), bench_.size); }

  Status await() {
    const auto here = [&] { return slots_.any_new(); };
    if (Status s = bench_.world.wait_until(here, bench_.world.deadline(), "a fragment"); !s) {
      return s;
    }
    if (Status s = slots_.collect([](const auto&) { return true; }); !s) return s;
    for (const LatestSlots::Message& m : slots_.take()) {
      if (check_) wrong_ += count_wrong(m.data, bench_.size, pair_.peer, m.round);
    }
    return slots_.give_back();
  }

  /// From here on what is sent is known, and what comes is looked at.
  void fill() {
    check_ = true;
    perf::fill(source_.get(), bench_.size, bench_.world.rank(), sent_);
  }
  std::uint64_t wrong() const { return wrong_; }

 private:
  const Bench& bench_;
  const Pair pair_;
  LatestSlots slots_;
  std::unique_ptr<std::byte[]> source_;
  Iteration sent_ = 0;
  bool check_ = false;
  std::uint64_t wrong_ = 0;
};

Measurement measure(const Bench& bench) {
  Fragments fragments(bench);
  Measurement result;
  result.operations = 2;  // there and back
  result.times = ping_pong(
      bench, bench.iterations, [&](std::int64_t) { return fragments.send(); },
      [&](std::int64_t) { return fragments.await(); });
  for (std::int64_t k = 0; bench.options.check && k < checked_rounds; ++k) {
    fragments.fill();
    if (fragments.starts()) fragments.send().throw_if_failed();
    fragments.await().throw_if_failed();
    if (!fragments.starts()) fragments.send().throw_if_failed();
  }
  result.wrong = fragments.wrong();
  return result;
}

double bytes(double size, const PerfOptions&) { return size; }

}  // namespace

const Test fragment_test = {
    "fragment", "a fragment, one way: put until it is taken, and its slot given back",
    "4K",       "16M",
    measure,    bytes,
    true,       true};

}  // namespace slip::perf
