#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "slipstream/kernels/vector.h"

/// Arithmetic on parameter vectors: one pass over memory each, no allocation, no failure. All
/// vectors of one call have the same dtype and count (asserted only: these are hot paths), and need
/// no more alignment than their element type. An output may be the very same vector as an input,
/// but must not overlap one partly. Thread-safe as long as no two threads touch the same output.
///
/// Vectors in the memory of a GPU, all of one: the pass is enqueued on gpu::current_stream, and
/// what fails shows in that stream's status. An average there has at most 1024 inputs, and a relay
/// as many messages. What stands in no VectorView is the memory of the VectorView beside it.
///
/// One seed, one history: element by element, inputs are accumulated in order, multiplied and then
/// added, never fused. Every instruction set therefore gives the results of the plain loops in
/// reference.h bit for bit (NaN payloads apart), and there is no separate mode for portable
/// results.
///
/// Precision: all arithmetic is in the vectors' own type T; weights and the factors of SgdStep are
/// rounded to T once. With u = epsilon(T) / 2 and gamma(m) = m u / (1 - m u), the errors below hold
/// where nothing overflows or underflows.
namespace slip::kernels {

/// How a gradient is applied after averaging; everything is in units of the parameters.
///   v <- momentum * v + (g + weight_decay * x_k);   x <- average - learning_rate * v
/// where x_k is the worker's own vector before averaging. With momentum == 0, `velocity` is unused
/// and may be null.
struct SgdStep {
  double learning_rate = 0;
  double momentum = 0;
  double weight_decay = 0;
  VectorView velocity = {};  // local optimiser state, read and written
};

/// out = sum_i weights[i] * inputs[i]. At least one input, and a weight for each.
/// Error against the exact sum of n inputs: at most gamma(n + 1) * sum_i |weights[i] * inputs[i]|.
void weighted_average(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights);

/// The same, and each of `copies` = out; they may be inputs as `out` may.
void weighted_average(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights, std::span<const VectorView> copies);

/// Average and apply in one pass: out = sum_i weights[i] * inputs[i] - learning_rate * v, with v as
/// SgdStep says. inputs[0] is the worker's own x_k. `velocity` is none of the other vectors.
/// Error of v: at most gamma(4) * (|momentum * v| + |g| + |weight_decay * x_k|); of out: at most
/// gamma(n + 6) * (sum_i |weights[i] * inputs[i]| + |learning_rate| * the same sum of v's terms).
void average_apply(VectorView out, std::span<const ConstVectorView> inputs,
                   std::span<const double> weights, ConstVectorView gradient, const SgdStep& step);

/// y += a * x. Error: at most gamma(3) * (|y| + |a * x|).
void axpy(VectorView y, double a, ConstVectorView x);

/// out = x. One may be in the host's memory and the other in a GPU's, whose stream copies; then
/// memory of the host that is not pinned is copied before this returns.
void copy(VectorView out, ConstVectorView x);

/// The average of a round of RelaySum: out = weight * (own + every message) + rest_weight * rest,
/// accumulated in this order like weighted_average's.
struct RelayAverage {
  VectorView out;  // may be `own`
  double weight = 0;
  ConstVectorView rest = {};  // what stands for missing vectors; without data: none are missing
  double rest_weight = 0;
};

/// What a round of RelaySum computes, in one pass: sums[k] = own + every message but messages[k],
/// and the average, if one is wanted. A sum for each message, or none at all; a message without
/// data counts for nothing. Errors as those of weighted_average.
void relay(std::span<const VectorView> sums, ConstVectorView own,
           std::span<const ConstVectorView> messages, const RelayAverage* average = nullptr);

/// out[i] = x[order[i]] for as many elements as `order` has, all below x.count. `out` is apart from
/// `x`.
void gather(VectorView out, ConstVectorView x, std::span<const std::uint32_t> order);

/// x[order[i]] = sum_k weights[k] * inputs[k][i], in one pass: the average of a fragment goes to
/// where its elements are. Inputs have as many elements as `order`, all below x.count and each
/// there once, and are apart from `x`. Error as that of weighted_average.
void scatter_average(VectorView x, std::span<const std::uint32_t> order,
                     std::span<const ConstVectorView> inputs, std::span<const double> weights);

/// out = x in bfloat16: the upper halves of the floats, rounded to nearest, ties to even. Error: at
/// most 2^-8 (1 + 2^-16) |x| from 2^-126 on, where it does not round to infinity (from about
/// 3.39e38 on); less than 2^-126 below. NaN stays NaN. One vector has as many elements as the
/// other.
void to_bf16(std::span<std::uint16_t> out, ConstVectorView x);

/// out = x, exactly. `x` may be the last bytes of `out`'s memory.
void from_bf16(VectorView out, std::span<const std::uint16_t> x);

/// out = x in IEEE half precision, rounded to nearest, ties to even. Error: at most 2^-11
/// (1 + 2^-13) |x| from 2^-14 to 65504; at most 2^-25 (1 + 2^-13) below; from 65520 on it is
/// infinite. NaN stays NaN. One vector has as many elements as the other.
void to_fp16(std::span<std::uint16_t> out, ConstVectorView x);

/// out = x, exactly. `x` may be the last bytes of `out`'s memory.
void from_fp16(VectorView out, std::span<const std::uint16_t> x);

/// A hash of the size and of the 8-byte words (the tail padded with zeros), each scattered by
/// slip::mix: detects torn and lost writes in debug builds. Every change of a single word changes
/// it; it is no protection against malice.
std::uint64_t checksum(std::span<const std::byte> bytes);

/// The instruction set in use ("AVX3", "AVX2", "SSE4", "EMU128", ...), for reports.
const char* target_name();

}  // namespace slip::kernels
