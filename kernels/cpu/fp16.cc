#include <cassert>

#include "slipstream/kernels/cuda/cuda_internal.h"
#include "slipstream/kernels/elements.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/kernels/reference.h"

namespace slip::kernels {

void to_fp16(std::span<std::uint16_t> out, ConstVectorView x) {
  assert(out.size() == x.count);
  if (x.on_gpu()) return cuda::to_fp16(out, x);
  if (x.dtype == Dtype::float32) return reference::to_fp16<float>(out, x);
  reference::to_fp16<double>(out, x);
}

void from_fp16(VectorView out, std::span<const std::uint16_t> x) {
  assert(out.count == x.size());
  if (out.on_gpu()) return cuda::from_fp16(out, x);
  if (out.dtype == Dtype::float32) return reference::from_fp16<float>(out, x);
  reference::from_fp16<double>(out, x);
}

}  // namespace slip::kernels
