#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>

#undef ibv_reg_mr

/// Memory that devices reach.
namespace fake_verbs {

struct Memory : ibv_mr {
  std::uint64_t first = 0;         // the address by which peers write it
  std::byte* reachable = nullptr;  // where it is for this process
  bool is_gpus = false;
  void* mapped = nullptr;  // of a dma-buf
  void* locked = nullptr;
  int access = 0;

  bool contains(std::uint64_t at, std::size_t bytes) const {
    return at >= first && at - first <= length && bytes <= length - (at - first);
  }
  std::byte* at(std::uint64_t address) const { return reachable + (address - first); }
};

/// Null, and errno says why not.
Memory* register_memory(ibv_pd* domain, void* address, std::size_t bytes, int access);
Memory* register_dma_buf(ibv_pd* domain, std::uint64_t offset, std::size_t bytes,
                         std::uint64_t first, int fd, int access);
void deregister(Memory* memory);

/// What devices have written into memory of GPUs is there only when `flush` has been called, which
/// the driver of the (fake) GPUs does. False: they order such writes by themselves.
bool gpus_are_flushed_by(void (*flush)());

/// What a device reads or writes: in order, and each word that is aligned whole. ThreadSanitizer
/// does not see it, as it does not see a device: two payloads may be put to one place.
void copy_in_order(std::byte* to, const std::byte* from, std::size_t bytes);

}  // namespace fake_verbs
