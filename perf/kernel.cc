#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/function_ref.h"
#include "slipstream/base/random.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/kernels/reference.h"
#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

/// A permutation in the memory of `device`.
class Order {
 public:
  Order(std::size_t count, Random& random, int device) : on_host_(count) {
    std::iota(on_host_.begin(), on_host_.end(), 0U);
    shuffle(on_host_, random);
    places = on_host_;
    if (device == gpu::host) return;
    const std::size_t bytes = count * sizeof(std::uint32_t);
    on_gpu_ = gpu::allocate(device, bytes);
    const gpu::Stream stream = gpu::current_stream(device);
    gpu::copy(on_gpu_.get(), on_host_.data(), bytes, stream).throw_if_failed();
    places = {reinterpret_cast<const std::uint32_t*>(on_gpu_.get()), count};
  }

  std::span<const std::uint32_t> places;

 private:
  std::vector<std::uint32_t> on_host_;
  std::shared_ptr<std::byte> on_gpu_;
};

/// The vectors of one call, drawn at random, in the memory of `device`, and views of them.
class Operands {
 public:
  Operands(const World& world, std::size_t size, int inputs, int device)
      : storage_(static_cast<std::size_t>(std::max(inputs, 2)) + 3,
                 std::vector<float>(std::max<std::size_t>(1, size / sizeof(float)))) {
    Random random(key({static_cast<std::uint64_t>(world.rank())}));
    for (auto& vector : storage_) {
      for (float& value : vector) value = static_cast<float>(random.uniform(-1, 1));
      views_.push_back(view(std::span(vector)));
      if (device != gpu::host) to_gpu(device, &views_.back());
    }
    out = views_[0];
    gradient = views_[1];
    step.velocity = views_[2];
    this->inputs.assign(views_.begin() + 3, views_.begin() + 3 + inputs);
    messages = {views_[3], views_[4]};
    sums = {views_[1], views_[2]};
    average.out = out;
    order = std::make_unique<Order>(out.count, random, device);
    weights.assign(this->inputs.size(), 1.0 / inputs);
  }

  /// What became of them, in the host's memory.
  const std::vector<std::vector<float>>& values() {
    for (std::size_t v = 0; v < views_.size(); ++v) {
      if (!views_[v].on_gpu()) continue;
      kernels::copy(view(std::span(storage_[v])), views_[v]);
      gpu::current_stream(views_[v].device).synchronize().throw_if_failed();
    }
    return storage_;
  }

  VectorView out;
  ConstVectorView gradient;
  std::vector<ConstVectorView> inputs;
  std::vector<double> weights;
  std::unique_ptr<Order> order;
  // Of a worker in a chain.
  std::array<ConstVectorView, 2> messages;
  std::array<VectorView, 2> sums;
  kernels::RelayAverage average = {.out = {}, .weight = 1.0 / 3};
  kernels::SgdStep step = {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-4};

 private:
  void to_gpu(int device, VectorView* vector) {
    memory_.push_back(gpu::allocate(device, vector->bytes()));
    const VectorView there{memory_.back().get(), vector->count, vector->dtype, device};
    kernels::copy(there, *vector);
    *vector = there;
  }

  std::vector<std::vector<float>> storage_;
  std::vector<std::shared_ptr<std::byte>> memory_;
  std::vector<VectorView> views_;
};

struct Kernel {
  const char* name;
  int vectors;  // read and written, but for the inputs of an average
  bool averages;
  void (*run)(Operands&);
  void (*reference)(Operands&);
};

namespace plain = kernels::reference;

constexpr std::array all_kernels = {
    Kernel{"weighted_average", 1, true,
           [](Operands& o) { kernels::weighted_average(o.out, o.inputs, o.weights); },
           [](Operands& o) { plain::weighted_average<float>(o.out, o.inputs, o.weights); }},
    Kernel{"average_copies", 3, true,
           [](Operands& o) { kernels::weighted_average(o.out, o.inputs, o.weights, o.sums); },
           [](Operands& o) {
             plain::weighted_average<float>(o.out, o.inputs, o.weights);
             for (const VectorView& copy : o.sums) kernels::copy(copy, o.out);
           }},
    Kernel{
        "average_apply", 4, true,
        [](Operands& o) { kernels::average_apply(o.out, o.inputs, o.weights, o.gradient, o.step); },
        [](Operands& o) {
          plain::average_apply<float>(o.out, o.inputs, o.weights, o.gradient, o.step);
        }},
    Kernel{"relay", 6, false,
           [](Operands& o) { kernels::relay(o.sums, o.out, o.messages, &o.average); },
           [](Operands& o) { plain::relay<float>(o.sums, o.out, o.messages, &o.average); }},
    Kernel{"gather", 3, false,
           [](Operands& o) { kernels::gather(o.out, o.gradient, o.order->places); },
           [](Operands& o) { plain::gather<float>(o.out, o.gradient, o.order->places); }},
    Kernel{
        "scatter_average", 2, true,
        [](Operands& o) { kernels::scatter_average(o.out, o.order->places, o.inputs, o.weights); },
        [](Operands& o) {
          plain::scatter_average<float>(o.out, o.order->places, o.inputs, o.weights);
        }},
    Kernel{"axpy", 3, false, [](Operands& o) { kernels::axpy(o.out, 0.5, o.gradient); },
           [](Operands& o) { plain::axpy<float>(o.out, 0.5, o.gradient); }},
    Kernel{"copy", 2, false, [](Operands& o) { kernels::copy(o.out, o.gradient); },
           [](Operands& o) {
             std::copy_n(o.gradient.as<float>().data(), o.out.count, o.out.as<float>().data());
           }},
};

const Kernel& kernel_of(std::string_view name) {
  return *std::find_if(all_kernels.begin(), all_kernels.end(),
                       [&](const Kernel& kernel) { return kernel.name == name; });
}

/// Elements in which the kernel and the plain loops differ; there should be none.
std::uint64_t check(const Bench& bench, const Kernel& kernel, int device) {
  Operands got(bench.world, bench.size, bench.options.inputs, device);
  Operands expected(bench.world, bench.size, bench.options.inputs, gpu::host);
  kernel.run(got);
  kernel.reference(expected);
  std::uint64_t wrong = 0;
  for (std::size_t v = 0; v < got.values().size(); ++v) {
    for (std::size_t i = 0; i < got.values()[v].size(); ++i) {
      wrong += got.values()[v][i] != expected.values()[v][i];
    }
  }
  return wrong;
}

/// Microseconds of `work`; what is enqueued on a GPU is timed there.
double time_of(const World& world, int device, FunctionRef<void()> work) {
  if (device == gpu::host) {
    const Time start = world.now();
    work();
    return microseconds(world.now() - start);
  }
  const gpu::Stream stream = gpu::current_stream(device);
  gpu::Event begin(device), end(device);
  begin.record(stream).throw_if_failed();
  work();
  end.record(stream).throw_if_failed();
  stream.synchronize().throw_if_failed();
  return microseconds(end.since(begin));
}

/// Short vectors many times over, so that the clock does not count.
std::int64_t calls_of(std::size_t size, int device) {
  const bool on_host = device == gpu::host;
  const std::size_t sample = on_host ? 64 << 10 : 64 << 20, most = on_host ? sample : 64;
  return static_cast<std::int64_t>(
      std::clamp<std::size_t>(sample / std::max<std::size_t>(1, size), 1, most));
}

Measurement measure(const Bench& bench) {
  const Kernel& kernel = kernel_of(bench.options.kernel);
  const int device = device_of(bench.world.rank(), bench.options);
  Operands operands(bench.world, bench.size, bench.options.inputs, device);
  const std::int64_t calls = calls_of(bench.size, device);
  Measurement result;
  result.operations = static_cast<double>(calls);
  result.times.resize(static_cast<std::size_t>(bench.iterations));
  for (std::int64_t k = -bench.warm_up; k < bench.iterations; ++k) {
    const double time = time_of(bench.world, device, [&] {
      for (std::int64_t call = 0; call < calls; ++call) kernel.run(operands);
    });
    if (k >= 0) result.times[static_cast<std::size_t>(k)] = time / static_cast<double>(calls);
  }
  if (bench.options.check) result.wrong = check(bench, kernel, device);
  return result;
}

double bytes(double size, const PerfOptions& options) {
  const Kernel& kernel = kernel_of(options.kernel);
  return size * (kernel.vectors + (kernel.averages ? options.inputs : 0));
}

/// A copy in the same memory, which no kernel can be much faster than.
std::string copy_beside(const World& world, std::size_t size, const PerfOptions& options) {
  const int device = device_of(world.rank(), options);
  Operands operands(world, size, 1, device);
  const Kernel& copy = kernel_of("copy");
  const std::int64_t calls = calls_of(size, device);
  std::vector<double> times(21);
  for (double& time : times) {
    time = time_of(world, device, [&] {
      for (std::int64_t call = 0; call < calls; ++call) copy.run(operands);
    });
  }
  std::nth_element(times.begin(), times.begin() + 10, times.end());
  const double time = times[10] / static_cast<double>(calls);
  return fmt::format("# copy of {} bytes: p50 {:.2f} us, bw {:.3f}\n", size, time,
                     copy.vectors * static_cast<double>(size) / time * 1e-3);
}

}  // namespace

const Test kernel_test = {
    "kernel",   "arithmetic on float vectors (--kernel), in every rank at once",
    "4K",       "16M",
    measure,    bytes,
    false,      false,
    copy_beside};

}  // namespace slip::perf
