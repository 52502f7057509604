#include "slipstream/collectives/all_reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/kernels/reference.h"
#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

PartialAllReduceOptions reduce_options(const World& world, const PerfOptions& options) {
  PartialAllReduceOptions result;
  result.in_place = true;
  result.algorithm = options.algorithm;
  result.device = device_of(world.rank(), options);
  return result;
}

/// The all-reduce under test, in the memory that --buffers and -m name.
class Reducer {
 public:
  explicit Reducer(const Bench& bench)
      : device_(device_of(bench.world.rank(), bench.options)),
        all_reduce_(bench.world, bench.name, count(bench), Dtype::float32,
                    reduce_options(bench.world, bench.options)),
        user_(bench.options.buffers == "user" ? count(bench) : 0, device_) {}

  static std::size_t count(const Bench& bench) {
    return std::max<std::size_t>(1, bench.size / sizeof(float));
  }

  VectorView vector() const {
    return user_.view().count == 0 ? all_reduce_.buffer() : user_.view();
  }
  void run() {
    const Status status =
        user_.view().count == 0 ? all_reduce_.mean() : all_reduce_.mean(user_.view());
    status.throw_if_failed();
    synchronize(device_);
  }

 private:
  const int device_;
  AllReduce all_reduce_;
  Floats user_;
};

std::vector<float> drawn(std::size_t count, int rank, std::int64_t round) {
  Random random(key({static_cast<std::uint64_t>(rank), static_cast<std::uint64_t>(round)}));
  std::vector<float> vector(count);
  for (float& value : vector) value = static_cast<float>(random.uniform(-1, 1));
  return vector;
}

/// What every rank must have, bit for bit, after all drew their vectors for that round.
std::vector<float> mean_of_all(std::size_t count, int workers, std::int64_t round) {
  std::vector<std::vector<float>> vectors(static_cast<std::size_t>(workers));
  std::vector<ConstVectorView> inputs;
  for (int rank = 0; rank < workers; ++rank) {
    auto& vector = vectors[static_cast<std::size_t>(rank)];
    vector = drawn(count, rank, round);
    inputs.push_back(view(std::span<const float>(vector)));
  }
  const std::vector<double> weights(inputs.size(), 1.0 / workers);
  std::vector<float> mean(count);
  kernels::reference::weighted_average<float>(view(std::span(mean)), inputs, weights);
  return mean;
}

std::uint64_t check(const Bench& bench, Reducer& reducer) {
  std::uint64_t wrong = 0;
  constexpr std::int64_t rounds = 2;
  const std::size_t count = Reducer::count(bench);
  // NCCL adds up in an order of its own.
  const float error =
      bench.options.algorithm == Algorithm::nccl
          ? static_cast<float>(bench.world.size()) * std::numeric_limits<float>::epsilon()
          : 0;
  for (std::int64_t round = 0; round < rounds; ++round) {
    write(reducer.vector(), drawn(count, bench.world.rank(), round));
    reducer.run();
    const std::vector<float> expected = mean_of_all(count, bench.world.size(), round);
    const std::vector<float> mean = read(reducer.vector());
    for (std::size_t i = 0; i < count; ++i) wrong += !(std::abs(mean[i] - expected[i]) <= error);
  }
  return wrong;
}

Measurement measure(const Bench& bench) {
  Reducer reducer(bench);
  write(reducer.vector(), drawn(Reducer::count(bench), bench.world.rank(), 0));
  Measurement result;
  result.times = back_to_back(bench, [&] { reducer.run(); });
  if (bench.options.check) result.wrong = check(bench, reducer);
  return result;
}

double bytes(double size, const PerfOptions& options) {
  return size * 2 * (options.workers - 1) / options.workers;
}

}  // namespace

const Test all_reduce_test = {
    "all-reduce", "the mean of float vectors, at every rank", "8", "16M", measure, bytes, false,
    true};

}  // namespace slip::perf
