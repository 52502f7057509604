#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "slipstream/kernels/vector.h"

namespace slip {

/// How a parameter vector is cut into fragments (DivShare, WWW'25): every tensor is cut in as many
/// pieces as there are fragments, and fragment f is the f-th piece of each. The cut is the same at
/// all workers and for the whole run, so a count for each fragment is enough to average, and the
/// fragments of a vector *in fragment order* are contiguous. Immutable.
class FragmentMap {
 public:
  enum class Order {
    blocks,    // pieces are consecutive elements: of one tensor, fragment order is its own
    shuffled,  // pieces of a random permutation of the tensor, as the paper's program has them
  };

  static constexpr std::size_t most = 1 << 16;

  /// `tensors` are the elements of each, in the order of the vector; `fragments` is from 1 to
  /// `most`. The last piece of a tensor takes what is left over. `seed` is that of the
  /// permutations; the vectors are in the memory of `device`. Throws Error.
  FragmentMap(std::span<const std::size_t> tensors, std::size_t fragments, Order order,
              std::uint64_t seed, int device = gpu::host);

  std::size_t fragments() const { return begin_.size() - 1; }
  /// Of the whole vector.
  std::size_t count() const { return begin_.back(); }
  /// Fragment f is elements [first(f), first(f) + count(f)) in fragment order.
  std::size_t first(std::size_t f) const { return begin_[f]; }
  std::size_t count(std::size_t f) const { return begin_[f + 1] - begin_[f]; }
  std::size_t largest() const;

  /// True if fragment order is the order of the vector.
  bool identity() const { return order_.empty(); }

  /// out = x in fragment order.
  void gather(VectorView out, ConstVectorView x) const;
  /// Fragment f of x = sum_i weights[i] * inputs[i], each of which holds its elements.
  void average(VectorView x, std::size_t f, std::span<const ConstVectorView> inputs,
               std::span<const double> weights) const;

 private:
  std::vector<std::size_t> begin_;  // by fragment, and the end
  /// Where in the vector an element is, in the vectors' memory; empty: where it is here.
  std::span<const std::uint32_t> order_;
  std::shared_ptr<const void> memory_;  // of order_
};

}  // namespace slip
