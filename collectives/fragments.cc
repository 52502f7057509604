#include "slipstream/collectives/fragments.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

template <class T>
void gather_as(std::span<T> out, std::span<const T> x, std::span<const std::uint32_t> order) {
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = x[order[i]];
}

template <class T>
void scatter_as(std::span<T> x, std::span<const T> in, std::span<const std::uint32_t> order) {
  for (std::size_t i = 0; i < in.size(); ++i) x[order[i]] = in[i];
}

}  // namespace

FragmentMap::FragmentMap(std::span<const std::size_t> tensors, std::size_t fragments, Order order,
                         std::uint64_t seed) {
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
  if (!std::is_sorted(in_order.begin(), in_order.end())) order_ = std::move(in_order);
}

std::size_t FragmentMap::largest() const {
  std::size_t most_elements = 0;
  for (std::size_t f = 0; f < fragments(); ++f) most_elements = std::max(most_elements, count(f));
  return most_elements;
}

void FragmentMap::gather(VectorView out, ConstVectorView x) const {
  if (identity()) return kernels::copy(out, x);
  if (x.dtype == Dtype::float32) return gather_as(out.as<float>(), x.as<float>(), order_);
  gather_as(out.as<double>(), x.as<double>(), order_);
}

void FragmentMap::scatter(VectorView x, std::size_t f, ConstVectorView in) const {
  if (identity()) return kernels::copy(x.slice(first(f), count(f)), in);
  const auto order = std::span(order_).subspan(first(f), count(f));
  if (x.dtype == Dtype::float32) return scatter_as(x.as<float>(), in.as<float>(), order);
  scatter_as(x.as<double>(), in.as<double>(), order);
}

}  // namespace slip
