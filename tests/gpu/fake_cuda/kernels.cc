#include "kernels.h"

namespace fake_cuda {

Kernel find_kernel(std::string_view) { return nullptr; }

}  // namespace fake_cuda
