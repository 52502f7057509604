#pragma once

#include <cstdint>
#include <span>

#include "slipstream/kernels/kernels.h"

#pragma GCC visibility push(hidden)

/// kernels.h for vectors in the memory of a GPU: each enqueues one pass on the thread's current
/// stream of it.
namespace slip::kernels::cuda {

void weighted_average(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights, std::span<const VectorView> copies = {});
void average_apply(VectorView out, std::span<const ConstVectorView> inputs,
                   std::span<const double> weights, ConstVectorView gradient, const SgdStep& step);
void relay(std::span<const VectorView> sums, ConstVectorView own,
           std::span<const ConstVectorView> messages, const RelayAverage* average);
void gather(VectorView out, ConstVectorView x, std::span<const std::uint32_t> order);
void scatter_average(VectorView x, std::span<const std::uint32_t> order,
                     std::span<const ConstVectorView> inputs, std::span<const double> weights);
void copy(VectorView out, ConstVectorView x);
void to_bf16(std::span<std::uint16_t> out, ConstVectorView x);
void from_bf16(VectorView out, std::span<const std::uint16_t> x);
void to_fp16(std::span<std::uint16_t> out, ConstVectorView x);
void from_fp16(VectorView out, std::span<const std::uint16_t> x);

}  // namespace slip::kernels::cuda

#pragma GCC visibility pop
