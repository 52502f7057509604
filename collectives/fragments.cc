#include "slipstream/collectives/fragments.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

/// `values` in the memory of `device`.
std::shared_ptr<const void> moved(std::vector<std::uint32_t> values, int device) {
  if (device == gpu::host) {
    const auto kept = std::make_shared<const std::vector<std::uint32_t>>(std::move(values));
    return {kept, kept->data()};
  }
  const auto bytes = std::as_bytes(std::span(values));
  const std::shared_ptr<std::byte> memory = gpu::allocate(device, bytes.size());
  const gpu::Stream stream(device, nullptr);
  gpu::copy(memory.get(), bytes.data(), bytes.size(), stream).throw_if_failed();
  stream.synchronize().throw_if_failed();
  return memory;
}

}  // namespace

FragmentMap::FragmentMap(std::span<const std::size_t> tensors, std::size_t fragments, Order order,
                         std::uint64_t seed, int device) {
  const std::size_t total = std::accumulate(tensors.begin(), tensors.end(), std::size_t{0});
  if (fragments < 1 || fragments > most || total > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(Code::invalid_argument,
                fmt::format("{} fragments of {} parameters; allowed are 1 to {} of up to 2^32 - 1",
                            fragments, total, most));
  }
  // The tensors' elements as they are cut up.
  std::vector<std::uint32_t> elements(total);
  std::iota(elements.begin(), elements.end(), 0U);
  if (order == Order::shuffled) {
    std::size_t first = 0;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      Random random(key({seed, t}));
      auto tensor = std::span(elements).subspan(first, tensors[t]);
      shuffle(tensor, random);
      first += tensors[t];
    }
  }
  begin_.push_back(0);
  std::vector<std::uint32_t> in_order;
  in_order.reserve(total);
  for (std::size_t f = 0; f < fragments; ++f) {
    std::size_t first = 0;
    for (const std::size_t tensor : tensors) {
      const std::size_t piece = tensor / fragments;
      const std::size_t begin = f * piece;
      const std::size_t end = f + 1 == fragments ? tensor : begin + piece;
      const auto at = elements.begin() + static_cast<std::ptrdiff_t>(first);
      in_order.insert(in_order.end(), at + static_cast<std::ptrdiff_t>(begin),
                      at + static_cast<std::ptrdiff_t>(end));
      first += tensor;
    }
    begin_.push_back(in_order.size());
  }
  if (std::is_sorted(in_order.begin(), in_order.end())) return;
  memory_ = moved(std::move(in_order), device);
  order_ = {static_cast<const std::uint32_t*>(memory_.get()), total};
}

std::size_t FragmentMap::largest() const {
  std::size_t most_elements = 0;
  for (std::size_t f = 0; f < fragments(); ++f) most_elements = std::max(most_elements, count(f));
  return most_elements;
}

void FragmentMap::gather(VectorView out, ConstVectorView x) const {
  if (identity()) return kernels::copy(out, x);
  kernels::gather(out, x, order_);
}

void FragmentMap::average(VectorView x, std::size_t f, std::span<const ConstVectorView> inputs,
                          std::span<const double> weights) const {
  if (identity()) return kernels::weighted_average(x.slice(first(f), count(f)), inputs, weights);
  kernels::scatter_average(x, order_.subspan(first(f), count(f)), inputs, weights);
}

}  // namespace slip
