// kernels.h on vectors in the memory of a GPU.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "driver.h"
#include "slipstream/base/random.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/kernels/reference.h"

namespace slip::kernels {
namespace {

/// A vector of the GPU's between two poisoned red zones, `shift` elements off the alignment of its
/// memory.
template <class T>
class OnGpu {
 public:
  OnGpu(std::size_t count, std::size_t shift)
      : first_(red_zone + shift),
        count_(count),
        all_(first_ + count + red_zone),
        memory_(gpu::allocate(0, all_.size() * sizeof(T))) {
    std::memset(all_.data(), 0xa5, all_.size() * sizeof(T));
    to_gpu();
  }
  OnGpu(const std::vector<T>& values, std::size_t shift) : OnGpu(values.size(), shift) {
    std::copy(values.begin(), values.end(), all_.begin() + static_cast<std::ptrdiff_t>(first_));
    to_gpu();
  }

  T* data() const { return reinterpret_cast<T*>(memory_.get()) + first_; }
  auto view() const requires std::is_floating_point_v<T> {
    return VectorView{data(), count_, dtype_of<T>(), 0};
  }
  std::span<T> span() const { return {data(), count_}; }

  /// What stands there; the red zones must be untouched.
  std::vector<T> values() const {
    std::vector<T> now(all_.size());
    EXPECT_TRUE(gpu::copy(now.data(), memory_.get(), now.size() * sizeof(T), stream()).ok());
    EXPECT_TRUE(stream().synchronize().ok());
    for (std::size_t i = 0; i < now.size(); ++i) {
      const bool inside = i >= first_ && i < first_ + count_;
      EXPECT_TRUE(inside || std::memcmp(&now[i], &all_[i], sizeof(T)) == 0) << "element " << i;
    }
    const auto begin = now.begin() + static_cast<std::ptrdiff_t>(first_);
    return {begin, begin + static_cast<std::ptrdiff_t>(count_)};
  }

 private:
  static constexpr std::size_t red_zone = 32;
  static gpu::Stream stream() { return gpu::current_stream(0); }
  void to_gpu() {
    EXPECT_TRUE(gpu::copy(memory_.get(), all_.data(), all_.size() * sizeof(T), stream()).ok());
  }

  std::size_t first_;
  std::size_t count_;
  std::vector<T> all_;
  std::shared_ptr<std::byte> memory_;
};

template <class T>
std::vector<T> random_values(std::size_t count, Random& random) {
  std::vector<T> values(count);
  for (T& x : values) x = static_cast<T>(random.normal() * std::exp2(random.uniform(-10, 10)));
  return values;
}

template <class T>
class GpuKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    SLIP_NEEDS_GPU();
    stream_.emplace(0);
    bound_.emplace(*stream_);
  }
  void TearDown() override {
    if (stream_) {
      EXPECT_EQ(stream_->status().message(), "");
    }
  }

  /// For sizes that are multiples of nothing, from a seed that it shows.
  template <class Body>
  void for_random_shapes(Body body) {
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      Random random(seed);
      body(static_cast<std::size_t>(random.below(seed % 8 == 0 ? 100'000 : 700)), random);
      if (this->HasFailure()) return;
    }
  }

 private:
  std::optional<gpu::Stream> stream_;
  std::optional<gpu::CurrentStream> bound_;
};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(GpuKernels, Types);

/// Inputs on the host and on the GPU.
template <class T>
struct Inputs {
  Inputs(std::size_t count, Random& random) : n(1 + random.below(7)) {
    const std::size_t shift = random.below(4);
    const bool together = random.below(2) == 0;
    for (std::size_t k = 0; k < n; ++k) {
      values.push_back(random_values<T>(count, random));
      vectors.emplace_back(values.back(), together ? shift : random.below(4));
      weights.push_back(random.uniform(-0.2, 1));
    }
    for (std::size_t k = 0; k < n; ++k) {
      host.push_back(view(std::span<const T>(values[k])));
      gpu.push_back(vectors[k].view());
    }
  }

  std::size_t n;
  std::vector<std::vector<T>> values;
  std::vector<OnGpu<T>> vectors;
  std::vector<ConstVectorView> host, gpu;
  std::vector<double> weights;
};

TYPED_TEST(GpuKernels, AverageIsTheReferenceBitForBit) {
  using T = TypeParam;
  this->for_random_shapes([](std::size_t count, Random& random) {
    Inputs<T> inputs(count, random);
    const OnGpu<T> out(count, random.below(4));
    std::vector<T> expected(count);
    weighted_average(out.view(), inputs.gpu, inputs.weights);
    reference::weighted_average<T>(view(std::span(expected)), inputs.host, inputs.weights);
    EXPECT_EQ(out.values(), expected);
  });
}

TYPED_TEST(GpuKernels, AverageAndApplyIsTheReferenceBitForBitAlsoInPlace) {
  using T = TypeParam;
  this->for_random_shapes([](std::size_t count, Random& random) {
    Inputs<T> inputs(count, random);
    std::vector<T> gradient = random_values<T>(count, random);
    std::vector<T> velocity = random_values<T>(count, random);
    const OnGpu<T> gpu_gradient(gradient, random.below(4)), gpu_velocity(velocity, random.below(4));
    SgdStep step{0.1, random.below(2) == 0 ? 0 : 0.9, 1e-2, gpu_velocity.view()};
    const OnGpu<T>& out = inputs.vectors[random.below(inputs.n)];
    average_apply(out.view(), inputs.gpu, inputs.weights, gpu_gradient.view(), step);
    std::vector<T> expected(count);
    step.velocity = view(std::span(velocity));
    reference::average_apply<T>(view(std::span(expected)), inputs.host, inputs.weights,
                                view(std::span(gradient)), step);
    EXPECT_EQ(out.values(), expected);
    EXPECT_EQ(gpu_velocity.values(), velocity);
  });
}

TYPED_TEST(GpuKernels, AxpyAndCopiesAreTheReferenceBitForBit) {
  using T = TypeParam;
  this->for_random_shapes([](std::size_t count, Random& random) {
    std::vector<T> x = random_values<T>(count, random), y = random_values<T>(count, random);
    const OnGpu<T> gpu_x(x, random.below(4)), gpu_y(y, random.below(4));
    const OnGpu<T> copied(count, random.below(4));
    axpy(gpu_y.view(), 0.3, gpu_x.view());
    copy(copied.view(), gpu_y.view());
    reference::axpy<T>(view(std::span(y)), 0.3, view(std::span<const T>(x)));
    EXPECT_EQ(copied.values(), y);
    std::vector<T> on_host(count);
    copy(view(std::span(on_host)), copied.view());
    EXPECT_EQ(on_host, y);
  });
}

TYPED_TEST(GpuKernels, ConversionsAreTheReferenceBitForBitAlsoInPlace) {
  using T = TypeParam;
  this->for_random_shapes([](std::size_t count, Random& random) {
    const std::vector<T> x = random_values<T>(count, random);
    const OnGpu<T> wide(x, random.below(4));
    const OnGpu<std::uint16_t> narrow(count, random.below(8));
    std::vector<std::uint16_t> expected(count);
    std::vector<T> expected_back(count);
    const auto check = [&](auto to, auto from, auto reference_to, auto reference_from) {
      to(narrow.span(), wide.view());
      reference_to(expected, view(std::span(x)));
      EXPECT_EQ(narrow.values(), expected);
      // From the last bytes of the vector itself.
      auto* end = reinterpret_cast<std::uint16_t*>(wide.data() + count);
      to({end - count, count}, OnGpu<T>(x, 1).view());
      from(wide.view(), {end - count, count});
      reference_from(view(std::span(expected_back)), expected);
      EXPECT_EQ(wide.values(), expected_back);
    };
    check(to_bf16, from_bf16, reference::to_bf16<T>, reference::from_bf16<T>);
    copy(wide.view(), view(std::span(x)));
    check(to_fp16, from_fp16, reference::to_fp16<T>, reference::from_fp16<T>);
  });
}

TYPED_TEST(GpuKernels, CopiesOfAnAverageAreStoredInTheSamePass) {
  using T = TypeParam;
  this->for_random_shapes([](std::size_t count, Random& random) {
    Inputs<T> inputs(count, random);
    const OnGpu<T> out(count, random.below(4)), copy(count, random.below(4));
    const VectorView copies[] = {copy.view(), inputs.vectors[random.below(inputs.n)].view()};
    std::vector<T> expected(count);
    reference::weighted_average<T>(view(std::span(expected)), inputs.host, inputs.weights);
    weighted_average(out.view(), inputs.gpu, inputs.weights, copies);
    EXPECT_EQ(out.values(), expected);
    EXPECT_EQ(copy.values(), expected);
    std::vector<T> over_an_input(count);
    kernels::copy(view(std::span(over_an_input)), copies[1]);
    EXPECT_EQ(over_an_input, expected);
  });
}

TYPED_TEST(GpuKernels, ARelayIsTheReferenceBitForBit) {
  using T = TypeParam;
  this->for_random_shapes([](std::size_t count, Random& random) {
    Inputs<T> messages(count, random);
    const std::size_t missing = random.below(2 * messages.n);  // which may be none
    if (missing < messages.n) messages.host[missing] = messages.gpu[missing] = {};
    std::vector<T> own = random_values<T>(count, random), rest = random_values<T>(count, random);
    const OnGpu<T> gpu_own(own, random.below(4)), gpu_rest(rest, random.below(4));
    std::vector<OnGpu<T>> sums;
    std::vector<std::vector<T>> expected(messages.n, std::vector<T>(count));
    std::vector<VectorView> gpu_sums, host_sums;
    for (std::size_t k = 0; k < messages.n; ++k) {
      sums.emplace_back(count, random.below(4));
      gpu_sums.push_back(sums.back().view());
      host_sums.push_back(view(std::span(expected[k])));
    }
    RelayAverage average{gpu_own.view(), 0.3, gpu_rest.view(), 0.2};
    relay(gpu_sums, gpu_own.view(), messages.gpu, &average);
    average.out = view(std::span(own));
    average.rest = view(std::span(rest));
    reference::relay<T>(host_sums, view(std::span(own)), messages.host, &average);
    EXPECT_EQ(gpu_own.values(), own);
    for (std::size_t k = 0; k < messages.n; ++k) EXPECT_EQ(sums[k].values(), expected[k]);
    average.rest = {};
    average.out = gpu_own.view();
    relay({}, gpu_own.view(), messages.gpu, &average);
    average.out = view(std::span(own));
    reference::relay<T>({}, view(std::span(own)), messages.host, &average);
    EXPECT_EQ(gpu_own.values(), own);
  });
}

TYPED_TEST(GpuKernels, FragmentsAreGatheredAndTheirAveragesScatteredBitForBit) {
  using T = TypeParam;
  this->for_random_shapes([](std::size_t count, Random& random) {
    std::vector<T> x = random_values<T>(count, random);
    std::vector<std::uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0U);
    shuffle(order, random);
    const OnGpu<T> gpu_x(x, random.below(4)), gathered(count, random.below(4));
    const OnGpu<std::uint32_t> gpu_order(order, random.below(4));
    gather(gathered.view(), gpu_x.view(), gpu_order.span());
    std::vector<T> expected(count);
    reference::gather<T>(view(std::span(expected)), view(std::span(x)), order);
    EXPECT_EQ(gathered.values(), expected);
    const std::size_t part = random.below(count + 1);
    Inputs<T> inputs(part, random);
    scatter_average(gpu_x.view(), gpu_order.span().first(part), inputs.gpu, inputs.weights);
    reference::scatter_average<T>(view(std::span(x)), std::span(order).first(part), inputs.host,
                                  inputs.weights);
    EXPECT_EQ(gpu_x.values(), x);
  });
}

TYPED_TEST(GpuKernels, ListsOfManyVectorsAreTheReferenceBitForBit) {
  using T = TypeParam;
  constexpr std::size_t n = 1000, count = 37;
  Random random(1);
  std::vector<T> all = random_values<T>(n * count, random);
  const OnGpu<T> gpu_all(all, 0);
  std::vector<ConstVectorView> inputs, host;
  for (std::size_t k = 0; k < n; ++k) {
    inputs.push_back(gpu_all.view().slice(k * count, count));
    host.push_back(view(std::span(all)).slice(k * count, count));
  }
  const std::vector<double> weights(n, 1.0 / n);
  const OnGpu<T> out(count, 1);
  std::vector<T> expected(count);
  weighted_average(out.view(), inputs, weights);
  reference::weighted_average<T>(view(std::span(expected)), host, weights);
  EXPECT_EQ(out.values(), expected);
  const std::vector<T> gradient = random_values<T>(count, random);
  average_apply(out.view(), inputs, weights, OnGpu<T>(gradient, 0).view(), {.learning_rate = 0.1});
  reference::average_apply<T>(view(std::span(expected)), host, weights, view(std::span(gradient)),
                              {.learning_rate = 0.1});
  EXPECT_EQ(out.values(), expected);
  RelayAverage average{out.view(), 1.0 / n};
  relay({}, inputs[0], inputs, &average);
  average.out = view(std::span(expected));
  reference::relay<T>({}, host[0], host, &average);
  EXPECT_EQ(out.values(), expected);
}

/// Prints the status that follows, and ends the process.
[[noreturn]] void average_of_too_many() {
  const auto memory = gpu::allocate(0, 4);
  const VectorView x{memory.get(), 1, Dtype::float32, 0};
  weighted_average(x, std::vector<ConstVectorView>(1025, x), std::vector<double>(1025, 1.0));
  std::fputs(gpu::current_stream(0).status().message().c_str(), stderr);
  std::_Exit(0);
}

TEST(GpuKernelErrors, AnAverageOfMoreThanAKernelTakesShowsInTheStatus) {
  SLIP_NEEDS_GPU();
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(average_of_too_many(), ::testing::ExitedWithCode(0),
              "GPU 0: an average of 1025 vectors; at most 1024 fit a kernel");
}

}  // namespace
}  // namespace slip::kernels
