#include "slipstream/trainer/prague.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/collectives/group_division.h"
#include "slipstream/collectives/group_service.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/runtime/background_internal.h"

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

using Wait = decltype(PartialAllReduceOptions::wait);
using Mean = std::function<Status(const Group&)>;  // of the worker's model, over the group

/// Which groups a worker averages in.
class Groups {
 public:
  explicit Groups(Mean mean) : mean_(std::move(mean)) {}
  virtual ~Groups() = default;

  /// The group of section 0, 1, ..., the next; without members where that is not known ahead.
  virtual const Group& foresee(std::uint64_t section) = 0;
  /// What a section averages.
  virtual Status average() = 0;
  /// What others count on after this worker's last iteration.
  virtual Status finish() { return {}; }

 protected:
  const Mean mean_;
};

/// Groups that follow from seed and section: every worker knows them all, and nobody asks.
class ScheduledGroups final : public Groups {
 public:
  ScheduledGroups(const Run& run, const Prague& options, Mean mean)
      : Groups(std::move(mean)), run_(run), options_(options) {}

  const Group& foresee(std::uint64_t section) override {
    group_ = {section + 1, members(section)};
    return group_;
  }
  Status average() override { return mean_(group_); }

 private:
  std::vector<int> members(std::uint64_t section) const {
    const int rank = run_.world.rank();
    if (options_.generator == Prague::Generator::static_) {
      return static_group(rank, section, run_.world.topology());
    }
    const Division groups = division(section);
    return *std::find_if(groups.begin(), groups.end(), [rank](const std::vector<int>& group) {
      return std::binary_search(group.begin(), group.end(), rank);
    });
  }

  Division division(std::uint64_t section) const {
    std::vector<int> everybody(static_cast<std::size_t>(run_.world.size()));
    std::iota(everybody.begin(), everybody.end(), 0);
    Random random(key({run_.seed, section}));
    if (options_.generator == Prague::Generator::division) {
      return divide(std::move(everybody), options_.group_size, random);
    }
    const Topology& topology = run_.world.topology();
    return section % 2 == 0
               ? inter_step(everybody, topology, section / 2, options_.group_size, random)
               : intra_step(everybody, topology);
  }

  const Run& run_;
  const Prague& options_;
  Group group_;
};

/// Groups of the group generator.
class ServedGroups final : public Groups {
 public:
  ServedGroups(const Run& run, const Prague& options, Bell bell, Mean mean, Wait wait)
      : Groups(std::move(mean)),
        rank_(run.world.rank()),
        asks_always_(options.generator == Prague::Generator::random),
        wait_(std::move(wait)),
        service_(run.world, run.name + "/generator", generator_options(options, run), bell) {}

  const Group& foresee(std::uint64_t) override { return unknown_; }

  /// Who finds a group in its buffer asks nobody, except that the random generator makes one for
  /// every request. That one comes after those that the worker was drawn into before.
  Status average() override {
    if (asks_always_ || !service_.ready()) {
      if (Status s = service_.request(); !s) return s;
    }
    do {
      if (Status s = execute_next(); !s) return s;
    } while (asks_always_ && formed_.initiator != rank_);
    return {};
  }

  /// No new groups; others count on those that are formed.
  Status finish() override {
    if (Status s = service_.leave(); !s) return s;
    for (;;) {
      if (Status s = execute_next(); !s) return s;
      if (formed_.group.members.empty()) return {};
    }
  }

 private:
  Status execute_next() {
    const auto told = [&] { return service_.ready(); };
    if (Status s = wait_(told, "the group generator"); !s) return s;
    if (Status s = service_.take(&formed_); !s) return s;
    if (formed_.group.members.empty()) return {};
    if (Status s = mean_(formed_.group); !s) return s;
    return service_.done(formed_.group);
  }

  const int rank_;
  const bool asks_always_;
  const Wait wait_;
  const Group unknown_;
  GroupService service_;
  FormedGroup formed_;  // taken last
};

class PragueProtocol final : public Protocol {
 public:
  PragueProtocol(const Run& run, const Prague& options)
      : run_(run),
        options_(options),
        reduce_(run.world, run.name + "/groups", run.x.count, run.x.dtype,
                {.wait = wait(),
                 .in_background = overlaps(),
                 .wire = options.wire,
                 .algorithm = options.algorithm,
                 .device = run.x.device}) {
    const auto mean = [this](const Group& group) {
      return overlaps() ? reduce_.mean(group) : reduce_.mean(group, run_.x);
    };
    if (options.free_running()) {
      const Bell bell = overlaps() ? Bell::progress : Bell::worker;
      groups_ = std::make_unique<ServedGroups>(run, options_, bell, mean, wait());
    } else {
      groups_ = std::make_unique<ScheduledGroups>(run, options_, mean);
    }
    if (overlaps()) background_ = std::make_unique<Background>(run.world, run.x.device);
  }

  Status enter(Iteration k) override {
    if (!averages(k)) return {};
    const Group& next = groups_->foresee(k / section());
    if (!next.members.empty()) {
      if (Status s = reduce_.announce(next); !s) return s;
    }
    return overlaps() ? begin(&Groups::average) : Status();
  }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    if (averages(k) && overlaps()) {
      if (Status s = end(); !s) return s;
      run_.timed(SpanKind::apply, [&] { apply_to_mean(gradient); });
      return {};
    }
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    return averages(k) ? groups_->average() : Status();
  }

  Status finish() override {
    if (!overlaps()) return groups_->finish();
    if (Status s = begin(&Groups::finish); !s) return s;
    if (Status s = end(); !s) return s;
    kernels::copy(run_.x, reduce_.buffer());
    return {};
  }

 private:
  /// The section of `k` ends with it.
  bool averages(Iteration k) const { return (k + 1) % section() == 0; }
  Iteration section() const { return static_cast<Iteration>(options_.section); }
  bool overlaps() const { return options_.order == Prague::Order::parallel; }

  /// How whoever averages waits: this worker, or what goes on beside it.
  Wait wait() {
    return [this](FunctionRef<bool()> condition, std::string_view what) {
      return background_ ? background_->wait(condition) : run_.wait(condition, what);
    };
  }

  /// Averages the model of now while the worker computes with it.
  Status begin(Status (Groups::*what)()) {
    kernels::copy(reduce_.buffer(), run_.x);
    return background_->begin([groups = groups_.get(), what] { return (groups->*what)(); });
  }

  Status end() {
    const auto ended = [&] { return background_->ended(); };
    if (Status s = run_.wait(ended, "the average of its group"); !s) return background_->cancel(s);
    return background_->result();
  }

  void apply_to_mean(const GradientStep& gradient) {
    const ConstVectorView mean = reduce_.buffer();
    const double one = 1;
    gradient.average({&mean, 1}, {&one, 1}, 0, run_.x.count);
    gradient.finish();
  }

  const Run& run_;
  const Prague options_;
  PartialAllReduce reduce_;
  std::unique_ptr<Groups> groups_;
  // If it overlaps. It ends before what it works with; and is there while it ends, as what it does
  // waits through it.
  std::unique_ptr<Background> background_;
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
           "seed")
      .add("order", order, {"serial", "parallel"},
           "average after the gradient, as the paper has it, or while it is computed")
      .append(slip::describe(algorithm, wire));
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
  std::size_t bytes =
      PartialAllReduce::memory(workers, shape.parameters, shape.dtype,
                               {.wire = wire, .algorithm = algorithm, .device = shape.device});
  if (free_running()) {
    bytes += GroupService::memory(generator_options(*this, workers), shape.rank);
  }
  return bytes;
}

std::unique_ptr<Protocol> Prague::make(const Run& run) const {
  return std::make_unique<PragueProtocol>(run, *this);
}

SLIP_PROTOCOL(Prague)

}  // namespace slip
