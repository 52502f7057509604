#pragma once

#include <functional>
#include <string_view>

namespace fake_cuda {

/// A kernel of Slipstream's by its name: takes its GPU and what cuLaunchKernel was given, and does
/// it.
/// Null: there is none of that name.
using Kernel = std::function<void()> (*)(int device, void** parameters);
Kernel find_kernel(std::string_view name);

}  // namespace fake_cuda
