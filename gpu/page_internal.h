#pragma once

#include <cstddef>

#pragma GCC visibility push(hidden)

namespace slip::gpu {

/// What others write is allocated in whole pages of this many bytes: CUDA IPC and a network's
/// device reach all of a page, and nothing of anybody else's is to be there.
/// (CUDA C++ Programming Guide, Interprocess Communication.)
constexpr std::size_t page = std::size_t{2} << 20;

}  // namespace slip::gpu

#pragma GCC visibility pop
