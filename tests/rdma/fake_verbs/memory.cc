#include "memory.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "device.h"

namespace fake_verbs {
namespace {

/// Looked up once: a program may set other variables while an engine's thread asks.
const char* library_of_gpus() {
  static const char* const library = std::getenv("SLIP_CUDA_LIBRARY");
  return library;
}

/// A function of the fake GPUs' driver (tests/gpu/fake_cuda); null where that is not loaded.
template <class Function>
Function* of_gpus(const char* name) {
  const char* const library = library_of_gpus();
  void* const handle = library == nullptr ? nullptr : dlopen(library, RTLD_NOW | RTLD_NOLOAD);
  return handle == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(handle, name));
}

/// Where the GPUs' own engines find what has this address; null: it is the host's.
std::byte* memory_of_gpus(void* address) {
  auto* const find = of_gpus<std::byte*(void*)>("fake_cuda_memory");
  return find == nullptr ? nullptr : find(address);
}

const Settings& of(const ibv_pd* domain) { return Device::of(domain->context).settings; }

Memory* add(ibv_pd* domain, const Memory& memory) {
  static std::atomic<std::uint32_t> last_key{0x1000};
  auto* const made = new Memory(memory);
  made->context = domain->context;
  made->pd = domain;
  made->lkey = made->rkey = ++last_key;
  return made;
}

}  // namespace

Memory* register_memory(ibv_pd* domain, void* address, std::size_t bytes, int access) {
  Memory memory;
  memory.addr = address;
  memory.length = bytes;
  memory.first = reinterpret_cast<std::uint64_t>(address);
  memory.reachable = memory_of_gpus(address);
  memory.is_gpus = memory.reachable != nullptr;
  memory.access = access;
  if (memory.is_gpus && !of(domain).peermem) {
    errno = EFAULT;
    return nullptr;
  }
  if (!memory.is_gpus) {
    memory.reachable = static_cast<std::byte*>(address);
    if (of(domain).locks) {
      // Sanitizers leave the C library's mlock out.
      if (syscall(SYS_mlock, address, bytes) != 0) return nullptr;
      memory.locked = address;
    }
  }
  return add(domain, memory);
}

Memory* register_dma_buf(ibv_pd* domain, std::uint64_t offset, std::size_t bytes,
                         std::uint64_t first, int fd, int access) {
  if (!of(domain).dma_buf) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  Memory memory;
  memory.length = bytes;
  memory.first = first;
  memory.is_gpus = true;
  memory.access = access;
  memory.mapped =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (memory.mapped == MAP_FAILED) return nullptr;
  memory.reachable = static_cast<std::byte*>(memory.mapped);
  return add(domain, memory);
}

void deregister(Memory* memory) {
  if (memory->mapped != nullptr) munmap(memory->mapped, memory->length);
  if (memory->locked != nullptr) munlock(memory->locked, memory->length);
  delete memory;
}

bool gpus_are_flushed_by(void (*flush)()) {
  auto* const tell = of_gpus<bool(void (*)())>("fake_cuda_on_flush");
  return tell != nullptr && tell(flush);
}

__attribute__((no_sanitize("thread"))) void copy_in_order(std::byte* to, const std::byte* from,
                                                          std::size_t bytes) {
  using Word = std::uint64_t;
  for (std::size_t i = 0; i < bytes;) {
    const bool is_word =
        bytes - i >= sizeof(Word) && reinterpret_cast<std::uintptr_t>(to + i) % sizeof(Word) == 0;
    if (!is_word) {
      to[i] = from[i];
      ++i;
      continue;
    }
    Word word = 0;
    __builtin_memcpy(&word, from + i, sizeof word);
    // Pairs with the acquire of whoever polls it.
    __atomic_store_n(reinterpret_cast<Word*>(to + i), word, __ATOMIC_RELEASE);
    i += sizeof word;
  }
}

}  // namespace fake_verbs
