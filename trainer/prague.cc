#include "slipstream/trainer/prague.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/collectives/group_division.h"
#include "slipstream/collectives/group_service.h"
#include "slipstream/collectives/partial_all_reduce.h"

namespace slip {
namespace {

GroupPolicy policy_of(Prague::Generator generator) {
  switch (generator) {
    case Prague::Generator::random:
      return GroupPolicy::random;
    case Prague::Generator::buffer:
      return GroupPolicy::buffer;
    case Prague::Generator::inter_intra:
      return GroupPolicy::inter_intra;
    default:
      return GroupPolicy::division;
  }
}

GroupGeneratorOptions generator_options(const Prague& options, int workers) {
  return {workers, policy_of(options.generator), options.group_size, options.filter};
}

GroupGeneratorOptions generator_options(const Prague& options, const Run& run) {
  GroupGeneratorOptions result = generator_options(options, run.world.size());
  result.seed = run.seed;
  if (result.policy == GroupPolicy::inter_intra) result.topology = &run.world.topology();
  return result;
}

/// What all variants have in common: gradient first, then average.
class PragueProtocol : public Protocol {
 public:
  PragueProtocol(const Run& run, const Prague& options)
      : run_(run),
        options_(options),
        reduce_(run.world, run.name + "/groups", run.x.count, run.x.dtype,
                {.wait = [&run](FunctionRef<bool()> condition,
                                std::string_view what) { return run.wait(condition, what); },
                 .device = run.x.device}) {}

  Status enter(Iteration k) override { return averages(k) ? prepare(k) : Status(); }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    return averages(k) ? average() : Status();
  }

 protected:
  /// The section of `k` ends with it.
  bool averages(Iteration k) const { return (k + 1) % section() == 0; }
  Iteration section() const { return static_cast<Iteration>(options_.section); }

  virtual Status prepare(Iteration k) = 0;
  virtual Status average() = 0;

  const Run& run_;
  const Prague options_;
  PartialAllReduce reduce_;
};

/// Groups that follow from seed and section: every worker knows them all, and nobody asks.
class ScheduledPrague final : public PragueProtocol {
 public:
  using PragueProtocol::PragueProtocol;

 private:
  Status prepare(Iteration k) override {
    const std::uint64_t step = k / section();
    group_ = {step + 1, members(step)};
    return reduce_.announce(group_);
  }
  Status average() override { return reduce_.mean(group_, run_.x); }

  std::vector<int> members(std::uint64_t step) const {
    const int rank = run_.world.rank();
    if (options_.generator == Prague::Generator::static_) {
      return static_group(rank, step, run_.world.topology());
    }
    const Division groups = division(step);
    return *std::find_if(groups.begin(), groups.end(), [rank](const std::vector<int>& group) {
      return std::binary_search(group.begin(), group.end(), rank);
    });
  }

  Division division(std::uint64_t step) const {
    std::vector<int> everybody(static_cast<std::size_t>(run_.world.size()));
    std::iota(everybody.begin(), everybody.end(), 0);
    Random random(key({run_.seed, step}));
    if (options_.generator == Prague::Generator::division) {
      return divide(std::move(everybody), options_.group_size, random);
    }
    const Topology& topology = run_.world.topology();
    return step % 2 == 0 ? inter_step(everybody, topology, step / 2, options_.group_size, random)
                         : intra_step(everybody, topology);
  }

  Group group_;
};

/// Groups of the group generator.
class ServedPrague final : public PragueProtocol {
 public:
  ServedPrague(const Run& run, const Prague& options)
      : PragueProtocol(run, options),
        service_(run.world, run.name + "/generator", generator_options(options, run)) {}

  /// No new groups; others count on those that are formed.
  Status finish() override {
    if (Status s = service_.leave(); !s) return s;
    for (;;) {
      if (Status s = execute_next(); !s) return s;
      if (formed_.group.members.empty()) return {};
    }
  }

 private:
  Status prepare(Iteration) override { return {}; }

  /// Who finds a group in its buffer asks nobody, except that the random generator makes one for
  /// every request. That one comes after those that the worker was drawn into before.
  Status average() override {
    const bool asks_always = options_.generator == Prague::Generator::random;
    if (asks_always || !service_.ready()) {
      if (Status s = service_.request(); !s) return s;
    }
    do {
      if (Status s = execute_next(); !s) return s;
    } while (asks_always && formed_.initiator != run_.world.rank());
    return {};
  }

  Status execute_next() {
    const auto told = [&] { return service_.ready(); };
    if (Status s = run_.wait(told, "the group generator"); !s) return s;
    if (Status s = service_.take(&formed_); !s) return s;
    if (formed_.group.members.empty()) return {};
    if (Status s = reduce_.mean(formed_.group, run_.x); !s) return s;
    return service_.done(formed_.group);
  }

  GroupService service_;
  FormedGroup formed_;  // taken last
};

}  // namespace

Options Prague::describe() {
  return Options()
      .add("generator", generator, {"static", "random", "buffer", "division", "inter-intra"},
           "how groups are formed")
      .add("group_size", group_size, "workers of a group, where it is not a whole host",
           Range::at_least(2))
      .add("filter", filter, "averages that a worker may lag behind who asks for a division",
           Range::at_least(1))
      .add("section", section, "iterations from one average to the next", Range::at_least(1))
      .add("service", service,
           "rank 0 forms groups on request (static has no need); else divisions follow from the "
           "seed");
}

void Prague::validate(const RunShape&) const {
  const auto refuse = [](const std::string& reason) {
    throw Error(Code::invalid_argument, "prague: " + reason);
  };
  const bool divides = generator == Generator::division || generator == Generator::inter_intra;
  if (group_size < 2) refuse("group_size is at least 2");
  if (section < 1) refuse("section is at least 1");
  if (filter && *filter < 1) refuse("filter is at least 1");
  if (filter && !(divides && service)) {
    refuse("filter is for generator division or inter-intra, with the service");
  }
  if (!service && !divides && generator != Generator::static_) {
    refuse("service=false is for generator static, division or inter-intra");
  }
}

bool Prague::free_running() const { return service && generator != Generator::static_; }

std::size_t Prague::memory(const RunShape& shape) const {
  const int workers = shape.graph.size();
  std::size_t bytes = PartialAllReduce::memory(workers, shape.parameters, shape.dtype);
  if (free_running()) {
    bytes += GroupService::memory(generator_options(*this, workers), shape.rank);
  }
  return bytes;
}

std::unique_ptr<Protocol> Prague::make(const Run& run) const {
  if (free_running()) return std::make_unique<ServedPrague>(run, *this);
  return std::make_unique<ScheduledPrague>(run, *this);
}

SLIP_PROTOCOL(Prague)

}  // namespace slip
