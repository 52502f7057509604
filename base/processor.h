#pragma once

namespace slip {

/// Tells the processor that this is a busy wait.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Asks for the cache line of `address` for writing, without waiting for it.
inline void prefetch_for_writing(const void* address) {
#if defined(__x86_64__)
  // The builtin asks for reading, unless the compiler may assume this instruction.
  asm volatile("prefetchw %0" ::"m"(*static_cast<const char*>(address)));
#else
  __builtin_prefetch(address, 1);
#endif
}

}  // namespace slip
