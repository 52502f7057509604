#include "kernels.h"

#include "device_memory.h"
#include "slipstream/kernels/cuda/passes_internal.h"

namespace fake_cuda {
namespace {

using namespace slip::kernels::cuda;

/// Items run from the last to the first, where the order of a loop would hide that they must not
/// depend on each other.
template <class Pass, int W>
std::function<void()> kernel(int device, void** parameters) {
  auto pass = *static_cast<const Pass*>(parameters[0]);
  const auto items = *static_cast<const Items*>(parameters[1]);
  const auto to_reachable = [device]<class T>(T*& vector) {
    vector = reinterpret_cast<T*>(reach_by_kernel(device, reinterpret_cast<CUdeviceptr>(vector)));
  };
  pass.each_vector(to_reachable);
  if constexpr (requires { pass.each_scattered(to_reachable); }) pass.each_scattered(to_reachable);
  return [pass, items] {
    for (std::size_t item = items.count(); item-- > 0;) do_item<W>(pass, items, item);
  };
}

}  // namespace

Kernel find_kernel(std::string_view name) {
#define SLIP_FIND(kernel_name, Pass, floats, doubles)                            \
  if (name == "slip_" #kernel_name "_float") return kernel<Pass<float>, floats>; \
  if (name == "slip_" #kernel_name "_double") return kernel<Pass<double>, doubles>;
  SLIP_CUDA_KERNELS(SLIP_FIND)
#undef SLIP_FIND
  return nullptr;
}

}  // namespace fake_cuda
