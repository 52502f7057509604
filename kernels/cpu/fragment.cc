#include <algorithm>
#include <array>
#include <cassert>
#include <vector>

#include "slipstream/kernels/cuda/cuda_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::kernels {
namespace {

template <class T>
void gather_as(std::span<T> out, std::span<const T> x, std::span<const std::uint32_t> order) {
  for (std::size_t i = 0; i < order.size(); ++i) out[i] = x[order[i]];
}

/// Part by part, so that a part's average is in the nearest cache as it is scattered.
template <class T>
void scatter_average_as(std::span<T> x, std::span<const std::uint32_t> order,
                        std::span<const ConstVectorView> inputs, std::span<const double> weights) {
  std::array<T, 4096 / sizeof(T)> average;
  thread_local std::vector<ConstVectorView> parts;  // keeps its capacity
  for (std::size_t first = 0; first < order.size(); first += average.size()) {
    const std::size_t n = std::min(average.size(), order.size() - first);
    parts.clear();
    for (const ConstVectorView& input : inputs) parts.push_back(input.slice(first, n));
    weighted_average(view(std::span(average).first(n)), parts, weights);
    for (std::size_t i = 0; i < n; ++i) x[order[first + i]] = average[i];
  }
}

}  // namespace

void gather(VectorView out, ConstVectorView x, std::span<const std::uint32_t> order) {
  assert(out.count == order.size() && out.dtype == x.dtype && out.device == x.device);
  if (out.on_gpu()) return cuda::gather(out, x, order);
  if (x.dtype == Dtype::float32) return gather_as(out.as<float>(), x.as<float>(), order);
  gather_as(out.as<double>(), x.as<double>(), order);
}

void scatter_average(VectorView x, std::span<const std::uint32_t> order,
                     std::span<const ConstVectorView> inputs, std::span<const double> weights) {
  assert(!inputs.empty() && inputs.size() == weights.size());
  assert(std::all_of(inputs.begin(), inputs.end(), [&](const ConstVectorView& input) {
    return input.count == order.size() && input.dtype == x.dtype && input.device == x.device;
  }));
  if (x.on_gpu()) return cuda::scatter_average(x, order, inputs, weights);
  if (x.dtype == Dtype::float32) {
    return scatter_average_as(x.as<float>(), order, inputs, weights);
  }
  scatter_average_as(x.as<double>(), order, inputs, weights);
}

}  // namespace slip::kernels
