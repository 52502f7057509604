#pragma once

#include <cstddef>
#include <string>

#include "slipstream/base/error.h"

/// What a network's device needs to write into memory of a GPU.
namespace slip::gpu {

/// A descriptor of a dma-buf of that memory, of which whole pages of the host's are allocated; the
/// caller closes it. -1 where there is none, and `why` says why not. Throws Error where there is no
/// such GPU.
int open_dma_buf(int device, const std::byte* memory, std::size_t bytes, std::string* why);

/// Why what a network's device has written could not be made visible to kernels; empty: it can.
/// Throws Error where there is no such GPU.
std::string why_no_flush(int device);

/// What network devices have written, as far as their completions have been seen, is visible to
/// kernels that are enqueued from now on.
Status flush_network_writes(int device);

/// "0000:1b:00.0", as lspci has it. Throws Error where there is no such GPU.
std::string pci_address(int device);

}  // namespace slip::gpu
