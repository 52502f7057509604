#include "settings.h"

#include "stand_in_setting.h"

namespace fake_cuda {
using slip::testing::read_setting;

const Settings& settings() {
  static const Settings known = [] {
    Settings result;
    read_setting("FAKE_CUDA_DEVICES", &result.devices);
    read_setting("FAKE_CUDA_FIRST", &result.first);
    read_setting("FAKE_CUDA_VERSION", &result.version);
    read_setting("FAKE_CUDA_MEMORY", &result.memory);
    read_setting("FAKE_CUDA_DMA_BUF", &result.dma_buf);
    read_setting("FAKE_CUDA_GPU_DIRECT", &result.gpu_direct);
    read_setting("FAKE_CUDA_FLUSH", &result.flush);
    read_setting("FAKE_CUDA_WRITES_ORDERED", &result.writes_ordered);
    read_setting("FAKE_CUDA_IPC", &result.ipc);
    read_setting("FAKE_CUDA_IPC_OPEN", &result.ipc_open);
    read_setting("FAKE_CUDA_PEER_ACCESS", &result.peer_access);
    read_setting("FAKE_CUDA_WAIT_VALUE", &result.wait_value);
    read_setting("FAKE_CUDA_LOST_AFTER", &result.lost_after);
    read_setting("FAKE_CUDA_DELAY_US", &result.delay_us);
    return result;
  }();
  return known;
}

std::atomic<bool>& lost() {
  static std::atomic<bool> state{false};
  return state;
}

}  // namespace fake_cuda
