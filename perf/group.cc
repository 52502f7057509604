#include <vector>

#include "slipstream/collectives/group_service.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

/// Asks for groups and executes them as Prague does, with vectors of one element.
class Worker {
 public:
  explicit Worker(const Bench& bench)
      : world_(bench.world),
        asks_always_(bench.options.generator == GroupPolicy::random),
        service_(bench.world, bench.name, generator_options(bench.options)),
        partial_(bench.world, bench.name + "/mean", 1, Dtype::float32) {}

  /// From the wish for a group to having it.
  Duration take() {
    const Time begin = world_.now();
    if (asks_always_ || !service_.ready()) service_.request().throw_if_failed();
    Duration time{};
    do {
      await_next();
      time = world_.now() - begin;
      execute();
    } while (asks_always_ && formed_.initiator != world_.rank());
    return time;
  }

  void leave() {
    service_.leave().throw_if_failed();
    for (;;) {
      await_next();
      if (formed_.group.members.empty()) return;
      execute();
    }
  }

 private:
  static GroupGeneratorOptions generator_options(const PerfOptions& options) {
    GroupGeneratorOptions result;
    result.workers = options.workers;
    result.policy = options.generator;
    result.group_size = options.members();
    return result;
  }

  void await_next() {
    world_.wait_until([&] { return service_.ready(); }, world_.deadline(), "a group")
        .throw_if_failed();
    service_.take(&formed_).throw_if_failed();
  }

  void execute() {
    partial_.mean(formed_.group).throw_if_failed();
    service_.done(formed_.group).throw_if_failed();
  }

  const World& world_;
  const bool asks_always_;
  GroupService service_;
  PartialAllReduce partial_;
  FormedGroup formed_;
};

Measurement measure(const Bench& bench) {
  Worker worker(bench);
  Measurement result;
  result.times.resize(static_cast<std::size_t>(bench.iterations));
  for (std::int64_t k = 0; k < bench.warm_up; ++k) (void)worker.take();
  const Time begin = bench.world.now();
  for (double& time : result.times) time = microseconds(worker.take());
  const auto taken = static_cast<double>(bench.iterations) * bench.world.size();
  result.interval = microseconds(bench.world.now() - begin) / taken;
  worker.leave();
  // Rank 0 serves until all have left.
  bench.world.bootstrap().fence(bench.world.options().join_timeout);
  return result;
}

/// Of the message that tells a member: number, who asked, and the members.
double bytes(double, const PerfOptions& options) { return 16 + 4.0 * options.members(); }

}  // namespace

const Test group_test = {
    "group", "the group service: from request to group", "8", "8", measure, bytes, false, true};

}  // namespace slip::perf
