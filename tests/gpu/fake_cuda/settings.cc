#include "settings.h"

#include <cstdlib>

namespace fake_cuda {
namespace {

template <class T>
void read(const char* name, T* value) {
  if (const char* text = std::getenv(name))
    *value = static_cast<T>(std::strtoull(text, nullptr, 10));
}

}  // namespace

const Settings& settings() {
  static const Settings known = [] {
    Settings result;
    read("FAKE_CUDA_DEVICES", &result.devices);
    read("FAKE_CUDA_VERSION", &result.version);
    read("FAKE_CUDA_MEMORY", &result.memory);
    read("FAKE_CUDA_DMA_BUF", &result.dma_buf);
    read("FAKE_CUDA_IPC", &result.ipc);
    read("FAKE_CUDA_WAIT_VALUE", &result.wait_value);
    read("FAKE_CUDA_LOST_AFTER", &result.lost_after);
    read("FAKE_CUDA_DELAY_US", &result.delay_us);
    return result;
  }();
  return known;
}

std::atomic<bool>& lost() {
  static std::atomic<bool> state{false};
  return state;
}

}  // namespace fake_cuda
