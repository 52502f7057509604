#pragma once

#include <cstddef>
#include <memory>

#include "slipstream/base/error.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// A zeroed parameter vector of our own, aligned for the kernels. Copies are the same vector.
class Vector {
 public:
  Vector() = default;
  /// In the memory of `device`. Throws Error.
  Vector(std::size_t count, Dtype dtype, int device = gpu::host);

  /// As large as `like`, in the same memory. Throws Error.
  explicit Vector(ConstVectorView like) : Vector(like.count, like.dtype, like.device) {}

  VectorView view() const { return view_; }

 private:
  std::shared_ptr<std::byte> memory_;
  VectorView view_;
};

/// kept = x, which is as large each time.
void remember(Vector& kept, ConstVectorView x);

/// to = from, between memory of the host and of a GPU, too; waits until it is done, for no longer
/// than `world` waits.
Status transfer(const World& world, VectorView to, ConstVectorView from);

/// body(x) with x in the host's memory: of one in a GPU's it is a copy, and what becomes of it is
/// copied back. Throws Error.
template <class Body>
void on_host(const World& world, VectorView x, Body body) {
  if (!x.on_gpu()) return body(x);
  const Vector copy(x.count, x.dtype);
  transfer(world, copy.view(), x).throw_if_failed();
  body(copy.view());
  transfer(world, x, copy.view()).throw_if_failed();
}

}  // namespace slip

#pragma GCC visibility pop
