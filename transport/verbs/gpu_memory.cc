#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "slipstream/gpu/rdma.h"
#include "slipstream/transport/verbs/gpu_memory_internal.h"

namespace slip::verbs {
namespace {

Registration register_dma_buf(const Device& device, int gpu, std::byte* memory, std::size_t bytes,
                              std::string* why) {
  if (library().ibv_reg_dmabuf_mr == nullptr) {
    *why = "libibverbs has none; install rdma-core 34 or newer";
    return nullptr;
  }
  const int fd = gpu::open_dma_buf(gpu, memory, bytes, why);
  if (fd < 0) return nullptr;
  Registration registration(library().ibv_reg_dmabuf_mr(
      device.domain(), 0, bytes, reinterpret_cast<std::uint64_t>(memory), fd,
      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
  if (!registration) *why = fmt::format("{}: {}", device.choice().device, std::strerror(errno));
  close(fd);  // the registration has its own
  return registration;
}

}  // namespace

GpuChoice choose_path(const GpuObstacles& obstacles) {
  if (!obstacles.flush.empty()) return {GpuPath::staged, obstacles.flush};
  if (obstacles.dma_buf.empty()) return {GpuPath::dma_buf, ""};
  const std::string first = "dma-buf: " + obstacles.dma_buf;
  if (obstacles.peermem.empty()) return {GpuPath::peermem, first};
  return {GpuPath::staged, fmt::format("{}; nvidia-peermem: {}", first, obstacles.peermem)};
}

std::string describe(const GpuChoice& choice) {
  switch (choice.path) {
    case GpuPath::dma_buf:
      return "dma-buf";
    case GpuPath::peermem:
      return fmt::format("nvidia-peermem ({})", choice.why);
    default:
      return fmt::format("staged through the host's memory ({})", choice.why);
  }
}

GpuRegistration register_gpu(const Device& device, int gpu, std::byte* memory, std::size_t bytes) {
  GpuObstacles obstacles;
  obstacles.flush = gpu::why_no_flush(gpu);
  Registration registration;
  if (obstacles.flush.empty()) {
    registration = register_dma_buf(device, gpu, memory, bytes, &obstacles.dma_buf);
    if (!registration) registration = device.try_register(memory, bytes);
    if (!registration) {
      obstacles.peermem =
          fmt::format("{}; is the module loaded (modprobe nvidia-peermem)?", std::strerror(errno));
    }
  }
  return {choose_path(obstacles), std::move(registration)};
}

}  // namespace slip::verbs
