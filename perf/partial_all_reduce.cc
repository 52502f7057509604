#include "slipstream/collectives/partial_all_reduce.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/gpu/nccl.h"
#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

constexpr std::size_t most_groups = 20'000;

PartialAllReduceOptions reduce_options(const World& world, const PerfOptions& options) {
  PartialAllReduceOptions result;
  result.in_place = true;
  result.wire = options.wire;
  result.algorithm = options.algorithm;
  result.device = device_of(world.rank(), options);
  return result;
}

std::size_t count_of(std::size_t bytes) { return std::max<std::size_t>(1, bytes / sizeof(float)); }

std::vector<int> first_ranks(int count) {
  std::vector<int> ranks(static_cast<std::size_t>(count));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

/// The members of group 0, 1, ..., and then from the start again: all groups that there are of that
/// size in random order (some of them, if they are very many).
std::vector<std::vector<int>> groups_of(const PerfOptions& options) {
  std::vector<std::vector<int>> groups = {first_ranks(options.members())};
  std::vector<bool> chosen(static_cast<std::size_t>(options.workers));
  std::fill_n(chosen.begin(), options.members(), true);
  while (groups.size() < most_groups && std::prev_permutation(chosen.begin(), chosen.end())) {
    std::vector<int>& members = groups.emplace_back();
    for (int rank = 0; rank < options.workers; ++rank) {
      if (chosen[static_cast<std::size_t>(rank)]) members.push_back(rank);
    }
  }
  Random random(1);
  for (std::size_t i = groups.size(); i > 1; --i) std::swap(groups[i - 1], groups[random.below(i)]);
  return groups;
}

/// Everybody takes group after group; all begin each at the same time, members or not.
class Reducer {
 public:
  explicit Reducer(const Bench& bench)
      : bench_(bench),
        groups_(groups_of(bench.options)),
        partial_(bench.world, bench.name, count_of(bench.size), Dtype::float32,
                 reduce_options(bench.world, bench.options)),
        start_(bench.world, bench.name + "/start", 1, Dtype::float32),
        user_(bench.options.buffers == "user" ? count_of(bench.size) : 0,
              device_of(bench.world.rank(), bench.options)) {
    // A peer is met once, in whichever group.
    next_ = {1, first_ranks(bench.world.size())};
    run_group().throw_if_failed();
  }

  VectorView vector() const { return is_users() ? user_.view() : partial_.buffer(); }

  /// What the next group took this worker; 0 if it is no member. A repeated one is run right behind
  /// itself, so that both kinds are of the same groups.
  Duration run() {
    advance();
    if (bench_.options.groups == "repeated" && groups_.size() > 1) (void)run_once();
    return run_once();
  }

  void advance() { next_.members = groups_[turn_++ % groups_.size()]; }
  Duration run_once() {
    start_.mean({++next_.sequence, first_ranks(bench_.world.size())}).throw_if_failed();
    if (!is_member()) return {};
    const Time begin = bench_.world.now();
    run_group().throw_if_failed();
    synchronize(user_.view().device);
    return bench_.world.now() - begin;
  }

  const std::vector<int>& members() const { return next_.members; }
  bool is_member() const {
    return std::binary_search(members().begin(), members().end(), bench_.world.rank());
  }

 private:
  bool is_users() const { return user_.view().count > 0; }
  Status run_group() {
    return is_users() ? partial_.mean(next_, user_.view()) : partial_.mean(next_);
  }

  const Bench& bench_;
  const std::vector<std::vector<int>> groups_;
  PartialAllReduce partial_;
  PartialAllReduce start_;
  Floats user_;
  Group next_;
  std::size_t turn_ = 0;
};

std::vector<float> drawn(std::size_t count, int rank, std::int64_t round) {
  Random random(key({static_cast<std::uint64_t>(rank), static_cast<std::uint64_t>(round)}));
  std::vector<float> vector(count);
  for (float& value : vector) value = static_cast<float>(random.uniform(-1, 1));
  return vector;
}

std::uint64_t check(const Bench& bench, Reducer& reducer) {
  std::uint64_t wrong = 0;
  constexpr std::int64_t rounds = 2;
  const std::size_t count = count_of(bench.size);
  for (std::int64_t round = 0; round < rounds; ++round) {
    write(reducer.vector(), drawn(count, bench.world.rank(), round));
    reducer.advance();
    (void)reducer.run_once();
    if (!reducer.is_member()) continue;
    const std::vector<float> mean = read(reducer.vector());
    const auto members = static_cast<double>(reducer.members().size());
    std::vector<double> exact(count);
    std::vector<double> size(count);
    for (const int rank : reducer.members()) {
      const std::vector<float> vector = drawn(count, rank, round);
      for (std::size_t i = 0; i < vector.size(); ++i) {
        exact[i] += static_cast<double>(vector[i]) / members;
        size[i] += std::abs(static_cast<double>(vector[i])) / members;
      }
    }
    const double error = bench.options.wire == Wire::bf16
                             ? bf16_error
                             : members * static_cast<double>(std::numeric_limits<float>::epsilon());
    for (std::size_t i = 0; i < mean.size(); ++i) {
      wrong += !(std::abs(static_cast<double>(mean[i]) - exact[i]) <= error * size[i]);
    }
  }
  return wrong;
}

Measurement measure(const Bench& bench) {
  Reducer reducer(bench);
  write(reducer.vector(), drawn(count_of(bench.size), bench.world.rank(), 0));
  Measurement result;
  result.times.resize(static_cast<std::size_t>(bench.iterations));
  for (std::int64_t k = 0; k < bench.warm_up; ++k) reducer.run();
  for (double& time : result.times) time = microseconds(reducer.run());
  if (bench.options.check) result.wrong = check(bench, reducer);
  return result;
}

double bytes(double size, const PerfOptions& options) {
  return size * 2 * (options.members() - 1) / options.members();
}

/// Of NCCL, which is for GPUs, and there by name alone.
std::string nccl_text(const PerfOptions& options) {
  if (options.memory != "cuda") return "";
  if (options.algorithm == Algorithm::nccl) return ", and nccl from the third time on";
  const Status usable = gpu::nccl_usable();
  return "; nccl: " + (usable ? "where --algorithm says so" : usable.message());
}

std::string explain(const World& world, std::size_t size, const PerfOptions& options) {
  // NCCL is for all to agree on, and this is one worker's question.
  PartialAllReduceOptions own = reduce_options(world, options);
  if (own.algorithm == Algorithm::nccl) own.algorithm = Algorithm::automatic;
  const PartialAllReduce asked(world, fmt::format("explain/{}", size), count_of(size),
                               Dtype::float32, own);
  const CostModel model = cost_model(world);
  const Group group{1, first_ranks(options.members())};
  const GroupShape shape = asked.shape(group);
  std::string text = fmt::format(
      "# costs: {}\n# {} bytes, {} members on {} hosts, at most {} on one:", model.to_text(), size,
      shape.members, shape.hosts, shape.per_host);
  for (const Algorithm algorithm :
       {Algorithm::one_shot, Algorithm::two_shot, Algorithm::hierarchical}) {
    if (!asked.possible(algorithm, group)) continue;
    text += fmt::format(" {} {:.4g} us,", to_string(algorithm),
                        model.seconds(algorithm, size, shape) * 1e6);
  }
  return text +
         fmt::format(" taken: {}{}\n", to_string(asked.algorithm(group)), nccl_text(options));
}

}  // namespace

const Test partial_all_reduce_test = {"partial-all-reduce",
                                      "the mean of float vectors, at every member of a group",
                                      "8",
                                      "16M",
                                      measure,
                                      bytes,
                                      false,
                                      true,
                                      explain};

}  // namespace slip::perf
