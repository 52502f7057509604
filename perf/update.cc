#include <algorithm>
#include <memory>

#include "slipstream/perf/bench.h"
#include "slipstream/runtime/update_queue.h"

namespace slip::perf {
namespace {

/// Updates that go to and fro: each is the permission to send the next, so two slots suffice.
class Updates {
 public:
  explicit Updates(const Bench& bench)
      : bench_(bench),
        pair_(bench),
        queue_(bench.world, bench.name, {{{pair_.peer, 0}}, {{pair_.peer, 0}}},
               {.bytes = bench.size, .depth = 2}),
        source_(std::make_unique<std::byte[]>(bench.size)) {}

  bool starts() const { return pair_.starts; }

  Status send() { return queue_.enqueue(0, sent_++, source_.get()); }
  Status await() {
    const auto here = [&] { return queue_.arrived(0, awaited_); };
    Status status = bench_.world.wait_until(here, bench_.world.deadline(), "an update");
    ++awaited_;
    return status;
  }

  void fill() { perf::fill(source_.get(), bench_.size, bench_.world.rank(), sent_); }
  std::uint64_t count_wrong() const {
    const std::byte* update = queue_.update(0, awaited_ - 1);
    return perf::count_wrong(update, bench_.size, pair_.peer, awaited_ - 1);
  }

 private:
  const Bench& bench_;
  const Pair pair_;
  UpdateQueue queue_;
  std::unique_ptr<std::byte[]> source_;
  Iteration sent_ = 0;
  Iteration awaited_ = 0;
};

Measurement measure(const Bench& bench) {
  Updates updates(bench);
  updates.fill();
  Measurement result;
  result.operations = 2;  // there and back
  result.times = ping_pong(
      bench, bench.iterations, [&](std::int64_t) { return updates.send(); },
      [&](std::int64_t) { return updates.await(); });
  for (std::int64_t k = 0; bench.options.check && k < checked_rounds; ++k) {
    updates.fill();
    if (updates.starts()) updates.send().throw_if_failed();
    updates.await().throw_if_failed();
    result.wrong += updates.count_wrong();
    if (!updates.starts()) updates.send().throw_if_failed();
  }
  return result;
}

double bytes(double size, const PerfOptions&) { return size; }

}  // namespace

const Test update_test = {"update", "an update, one way: enqueue until all of it has arrived",
                          "64K",    "16M",
                          measure,  bytes,
                          true,     true};

}  // namespace slip::perf
