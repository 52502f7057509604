#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

/// A driver of CUDA for machines without a GPU: a library with the functions that Slipstream uses,
/// on the processor. It is as asynchronous as the real one, and as strict: what is wrong there
/// fails here. SLIP_CUDA_LIBRARY names it to the program under test.
namespace fake_cuda {

/// From the environment, when first asked for.
struct Settings {
  int devices = 1;                     // FAKE_CUDA_DEVICES; 0: no GPU is here
  int first = 0;                       // FAKE_CUDA_FIRST, the machine's GPU that is 0 here
  int version = 13000;                 // FAKE_CUDA_VERSION, of the driver
  std::size_t memory = 1'000'000'000;  // FAKE_CUDA_MEMORY, bytes of each GPU
  bool dma_buf = true;                 // FAKE_CUDA_DMA_BUF=0: this driver has none
  bool gpu_direct = true;       // FAKE_CUDA_GPU_DIRECT=0: no other device writes their memory
  bool flush = true;            // FAKE_CUDA_FLUSH=0: this driver cannot flush what others write
  bool writes_ordered = false;  // FAKE_CUDA_WRITES_ORDERED=1: what others write needs no flush
  bool ipc = true;              // FAKE_CUDA_IPC=0: memory cannot be shared
  bool ipc_open = true;         // FAKE_CUDA_IPC_OPEN=0: it can, but nobody may open it
  bool peer_access = true;      // FAKE_CUDA_PEER_ACCESS=0: GPUs cannot reach each other
  bool wait_value = true;       // FAKE_CUDA_WAIT_VALUE=0: streams cannot wait for words
  std::uint64_t lost_after = ~std::uint64_t{0};  // FAKE_CUDA_LOST_AFTER, so many kernels
  int delay_us = 0;  // FAKE_CUDA_DELAY_US: each piece of work takes up to this
  // FAKE_CUDA_FAIL: all calls of that name fail
};

const Settings& settings();

/// The GPUs of this process are lost: nothing more is done, and every call says so.
std::atomic<bool>& lost();

}  // namespace fake_cuda
