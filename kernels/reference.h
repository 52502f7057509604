#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "slipstream/kernels/elements.h"
#include "slipstream/kernels/kernels.h"

/// The specification of kernels.h as plain loops, for vectors of T (float or double). The order of
/// the operations here is part of it: every implementation gives these very bits, on condition that
/// this header too is compiled without contraction (-ffp-contract=off).
namespace slip::kernels::reference {

/// As kernels::weighted_average.
template <class T>
void weighted_average(VectorView out, std::span<const ConstVectorView> inputs,
                      std::span<const double> weights) {
  const std::span<T> result = out.as<T>();
  for (std::size_t i = 0; i < result.size(); ++i) {
    T sum = static_cast<T>(weights[0]) * inputs[0].as<T>()[i];
    for (std::size_t k = 1; k < inputs.size(); ++k) {
      sum += static_cast<T>(weights[k]) * inputs[k].as<T>()[i];
    }
    result[i] = sum;
  }
}

/// As kernels::average_apply.
template <class T>
void average_apply(VectorView out, std::span<const ConstVectorView> inputs,
                   std::span<const double> weights, ConstVectorView gradient, const SgdStep& step) {
  const T learning_rate = static_cast<T>(step.learning_rate);
  const T momentum = static_cast<T>(step.momentum);
  const T weight_decay = static_cast<T>(step.weight_decay);
  const std::span<T> result = out.as<T>();
  for (std::size_t i = 0; i < result.size(); ++i) {
    T average = static_cast<T>(weights[0]) * inputs[0].as<T>()[i];
    for (std::size_t k = 1; k < inputs.size(); ++k) {
      average += static_cast<T>(weights[k]) * inputs[k].as<T>()[i];
    }
    T v = gradient.as<T>()[i] + weight_decay * inputs[0].as<T>()[i];
    if (step.momentum != 0) {
      T& velocity = step.velocity.as<T>()[i];
      v = momentum * velocity + v;
      velocity = v;
    }
    result[i] = average - learning_rate * v;
  }
}

/// As kernels::axpy.
template <class T>
void axpy(VectorView y, double a, ConstVectorView x) {
  for (std::size_t i = 0; i < y.count; ++i) y.as<T>()[i] += static_cast<T>(a) * x.as<T>()[i];
}

/// As kernels::relay.
template <class T>
void relay(std::span<const VectorView> sums, ConstVectorView own,
           std::span<const ConstVectorView> messages, const RelayAverage* average) {
  for (std::size_t i = 0; i < own.count; ++i) {
    const T mine = own.as<T>()[i];
    for (std::size_t k = 0; k < sums.size(); ++k) {
      T sum = mine;
      for (std::size_t from = 0; from < messages.size(); ++from) {
        if (from != k && messages[from].data != nullptr) sum += messages[from].as<T>()[i];
      }
      sums[k].as<T>()[i] = sum;
    }
    if (average == nullptr) continue;
    const T weight = static_cast<T>(average->weight);
    T mean = weight * mine;
    for (const ConstVectorView& message : messages) {
      if (message.data != nullptr) mean += weight * message.as<T>()[i];
    }
    if (average->rest.data != nullptr) {
      mean += static_cast<T>(average->rest_weight) * average->rest.as<T>()[i];
    }
    average->out.as<T>()[i] = mean;
  }
}

/// As kernels::gather.
template <class T>
void gather(VectorView out, ConstVectorView x, std::span<const std::uint32_t> order) {
  for (std::size_t i = 0; i < order.size(); ++i) out.as<T>()[i] = x.as<T>()[order[i]];
}

/// As kernels::scatter_average.
template <class T>
void scatter_average(VectorView x, std::span<const std::uint32_t> order,
                     std::span<const ConstVectorView> inputs, std::span<const double> weights) {
  for (std::size_t i = 0; i < order.size(); ++i) {
    T sum = static_cast<T>(weights[0]) * inputs[0].as<T>()[i];
    for (std::size_t k = 1; k < inputs.size(); ++k) {
      sum += static_cast<T>(weights[k]) * inputs[k].as<T>()[i];
    }
    x.as<T>()[order[i]] = sum;
  }
}

/// As kernels::to_bf16.
template <class T>
void to_bf16(std::span<std::uint16_t> out, ConstVectorView x) {
  for (std::size_t i = 0; i < x.count; ++i) {
    out[i] = bf16_of(static_cast<float>(x.as<T>()[i]));
  }
}

/// As kernels::from_bf16.
template <class T>
void from_bf16(VectorView out, std::span<const std::uint16_t> x) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    out.as<T>()[i] = static_cast<T>(float_of_bf16(x[i]));
  }
}

/// As kernels::to_fp16.
template <class T>
void to_fp16(std::span<std::uint16_t> out, ConstVectorView x) {
  for (std::size_t i = 0; i < x.count; ++i) out[i] = fp16_of(static_cast<float>(x.as<T>()[i]));
}

/// As kernels::from_fp16.
template <class T>
void from_fp16(VectorView out, std::span<const std::uint16_t> x) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    out.as<T>()[i] = static_cast<T>(float_of_fp16(x[i]));
  }
}

}  // namespace slip::kernels::reference
