#include "slipstream/collectives/all_reduce.h"

#include <algorithm>
#include <span>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/kernels/reference.h"
#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

/// The all-reduce under test, in the memory that --buffers names.
class Reducer {
 public:
  explicit Reducer(const Bench& bench)
      : all_reduce_(bench.world, bench.name, count(bench), Dtype::float32, {.in_place = true}),
        user_(bench.options.buffers == "user" ? count(bench) : 0) {}

  static std::size_t count(const Bench& bench) {
    return std::max<std::size_t>(1, bench.size / sizeof(float));
  }

  std::span<float> vector() {
    return user_.empty() ? all_reduce_.buffer().as<float>() : std::span(user_);
  }
  void run() {
    const Status status = user_.empty() ? all_reduce_.mean() : all_reduce_.mean(view(vector()));
    status.throw_if_failed();
  }

 private:
  AllReduce all_reduce_;
  std::vector<float> user_;
};

void draw(std::span<float> vector, int rank, std::int64_t round) {
  Random random(key({static_cast<std::uint64_t>(rank), static_cast<std::uint64_t>(round)}));
  for (float& value : vector) value = static_cast<float>(random.uniform(-1, 1));
}

/// What every rank must have, bit for bit, after all drew their vectors for that round.
std::vector<float> mean_of_all(std::size_t count, int workers, std::int64_t round) {
  std::vector<std::vector<float>> vectors(static_cast<std::size_t>(workers));
  std::vector<ConstVectorView> inputs;
  for (int rank = 0; rank < workers; ++rank) {
    auto& vector = vectors[static_cast<std::size_t>(rank)];
    vector.resize(count);
    draw(vector, rank, round);
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
  for (std::int64_t round = 0; round < rounds; ++round) {
    draw(reducer.vector(), bench.world.rank(), round);
    reducer.run();
    const std::vector<float> expected =
        mean_of_all(Reducer::count(bench), bench.world.size(), round);
    for (std::size_t i = 0; i < expected.size(); ++i) wrong += reducer.vector()[i] != expected[i];
  }
  return wrong;
}

Measurement measure(const Bench& bench) {
  Reducer reducer(bench);
  draw(reducer.vector(), bench.world.rank(), 0);
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
