#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/kernels/reference.h"
#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

/// The vectors of one call, drawn at random, and views of them.
struct Operands {
  explicit Operands(const Bench& bench)
      : storage(5, std::vector<float>(std::max<std::size_t>(1, bench.size / sizeof(float)))) {
    Random random(key({static_cast<std::uint64_t>(bench.world.rank())}));
    for (auto& vector : storage) {
      for (float& value : vector) value = static_cast<float>(random.uniform(-1, 1));
    }
    step.velocity = view(std::span(storage[4]));
  }

  std::vector<std::vector<float>> storage;
  VectorView out = view(std::span(storage[0]));
  std::array<ConstVectorView, 2> inputs = {view(std::span(storage[1])),
                                           view(std::span(storage[2]))};
  ConstVectorView gradient = view(std::span(storage[3]));
  std::array<double, 2> halves = {0.5, 0.5};
  // Of a worker in a chain.
  std::array<VectorView, 2> sums = {view(std::span(storage[3])), view(std::span(storage[4]))};
  kernels::RelayAverage average = {.out = out, .weight = 1.0 / 3};
  kernels::SgdStep step = {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-4};
};

struct Kernel {
  const char* name;
  double vectors;  // read and written
  void (*run)(Operands&);
  void (*reference)(Operands&);
};

namespace plain = kernels::reference;

constexpr std::array all_kernels = {
    Kernel{"weighted_average", 3,
           [](Operands& o) { kernels::weighted_average(o.out, o.inputs, o.halves); },
           [](Operands& o) { plain::weighted_average<float>(o.out, o.inputs, o.halves); }},
    Kernel{
        "average_apply", 6,
        [](Operands& o) { kernels::average_apply(o.out, o.inputs, o.halves, o.gradient, o.step); },
        [](Operands& o) {
          plain::average_apply<float>(o.out, o.inputs, o.halves, o.gradient, o.step);
        }},
    Kernel{"relay", 6, [](Operands& o) { kernels::relay(o.sums, o.out, o.inputs, &o.average); },
           [](Operands& o) { plain::relay<float>(o.sums, o.out, o.inputs, &o.average); }},
    Kernel{"axpy", 3, [](Operands& o) { kernels::axpy(o.out, 0.5, o.gradient); },
           [](Operands& o) { plain::axpy<float>(o.out, 0.5, o.gradient); }},
    Kernel{"copy", 2, [](Operands& o) { kernels::copy(o.out, o.gradient); },
           [](Operands& o) {
             std::copy_n(o.gradient.as<float>().data(), o.out.count, o.out.as<float>().data());
           }},
};

const Kernel& kernel_of(const PerfOptions& options) {
  return *std::find_if(all_kernels.begin(), all_kernels.end(),
                       [&](const Kernel& kernel) { return kernel.name == options.kernel; });
}

/// Elements in which the kernel and the plain loops differ; there should be none.
std::uint64_t check(const Bench& bench, const Kernel& kernel) {
  Operands got(bench);
  Operands expected(bench);
  kernel.run(got);
  kernel.reference(expected);
  std::uint64_t wrong = 0;
  for (std::size_t v = 0; v < got.storage.size(); ++v) {
    for (std::size_t i = 0; i < got.storage[v].size(); ++i) {
      wrong += got.storage[v][i] != expected.storage[v][i];
    }
  }
  return wrong;
}

Measurement measure(const Bench& bench) {
  const Kernel& kernel = kernel_of(bench.options);
  Operands operands(bench);
  // Short vectors many times over, so that the clock does not count.
  constexpr std::size_t sample_bytes = 64 << 10;
  const auto calls = static_cast<std::int64_t>(
      std::max<std::size_t>(1, sample_bytes / std::max<std::size_t>(1, bench.size)));
  Measurement result;
  result.operations = static_cast<double>(calls);
  result.times.resize(static_cast<std::size_t>(bench.iterations));
  for (std::int64_t k = -bench.warm_up; k < bench.iterations; ++k) {
    const Time start = bench.world.now();
    for (std::int64_t call = 0; call < calls; ++call) kernel.run(operands);
    const double time = microseconds(bench.world.now() - start) / static_cast<double>(calls);
    if (k >= 0) result.times[static_cast<std::size_t>(k)] = time;
  }
  if (bench.options.check) result.wrong = check(bench, kernel);
  return result;
}

double bytes(double size, const PerfOptions& options) { return size * kernel_of(options).vectors; }

}  // namespace

const Test kernel_test = {"kernel", "arithmetic on float vectors (--kernel), in every rank at once",
                          "4K",     "16M",
                          measure,  bytes,
                          false,    false};

}  // namespace slip::perf
