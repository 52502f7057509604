#include <cassert>
#include <cstring>

#include "slipstream/base/copy.h"
#include "slipstream/base/random.h"
#include "slipstream/kernels/cuda/cuda_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::kernels {

void copy(VectorView out, ConstVectorView x) {
  assert(out.dtype == x.dtype && out.count == x.count);
  if (out.on_gpu() || x.on_gpu()) return cuda::copy(out, x);
  copy_bytes(out.data, x.data, x.bytes());
}

std::uint64_t checksum(std::span<const std::byte> bytes) {
  std::uint64_t hash = mix(bytes.size());
  while (!bytes.empty()) {
    std::uint64_t word = 0;
    const std::size_t n = bytes.size() < sizeof word ? bytes.size() : sizeof word;
    std::memcpy(&word, bytes.data(), n);
    hash = mix(hash ^ word);
    bytes = bytes.subspan(n);
  }
  return hash;
}

}  // namespace slip::kernels
