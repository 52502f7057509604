#include <cuda.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "capture.h"
#include "device_memory.h"
#include "kernels.h"
#include "queue.h"
#include "settings.h"

// The functions of the driver, each as CUDA's documentation says, for as much of it as is used.

using namespace fake_cuda;

namespace {

constexpr int most_devices = 16;
struct Context {};
Context contexts[most_devices];  // by device
thread_local CUcontext current = nullptr;
thread_local bool in_host_function = false;  // which may call nothing here
std::atomic<pid_t> started{0};               // the process in which it was; a fork has no driver
std::atomic<std::uint64_t> launched{0};
std::atomic<void (*)()> flush_writes{nullptr};
std::atomic<const char*> failing{std::getenv("FAKE_CUDA_FAIL")};

CUcontext context_of(int device) { return reinterpret_cast<CUcontext>(&contexts[device]); }

int device_of(CUcontext context) {
  return static_cast<int>(reinterpret_cast<Context*>(context) - contexts);
}

/// What a call would say now.
CUresult state(const char* call = __builtin_FUNCTION()) {
  if (started != getpid()) return CUDA_ERROR_NOT_INITIALIZED;
  if (in_host_function) return CUDA_ERROR_NOT_PERMITTED;
  if (lost()) return CUDA_ERROR_ILLEGAL_ADDRESS;
  const char* const fails = failing;
  if (fails != nullptr && std::strcmp(fails, call) == 0) return CUDA_ERROR_NOT_PERMITTED;
  return current == nullptr ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

Queue& queue_of(CUstream stream) {
  if (stream == nullptr || stream == CU_STREAM_LEGACY) return Queue::default_of(device_of(current));
  return *reinterpret_cast<Queue*>(stream);
}

Marker& marker_of(CUevent event) { return *reinterpret_cast<Marker*>(event); }

/// Is all of it memory of one GPU, or all of it the host's?
bool whole(CUdeviceptr address, std::size_t bytes) {
  const std::optional<Piece> piece = piece_of(address);
  return !piece || bytes <= piece->address + piece->asked - address;
}

bool pageable(CUdeviceptr address) {
  return !piece_of(address) && !pinned(reinterpret_cast<void*>(address));
}

/// GPU code is what the real driver would take: a fat binary.
bool is_fat_binary(const void* image) {
  std::uint32_t magic = 0;
  std::memcpy(&magic, image, sizeof magic);
  return magic == 0xba55ed50;
}

}  // namespace

#define SLIP_RETURN_UNLESS_READY \
  if (const CUresult s = state(); s != CUDA_SUCCESS) return s

extern "C" {

// ---- The driver and its devices.

CUresult cuInit(unsigned) {
  if (settings().devices == 0) return CUDA_ERROR_NO_DEVICE;
  started = getpid();
  return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
  *version = settings().version;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char** name) {
  *name = error == CUDA_ERROR_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR";
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
  switch (error) {
    case CUDA_SUCCESS:
      *text = "no error";
      break;
    case CUDA_ERROR_INVALID_VALUE:
      *text = "invalid argument";
      break;
    case CUDA_ERROR_OUT_OF_MEMORY:
      *text = "out of memory";
      break;
    case CUDA_ERROR_INVALID_CONTEXT:
      *text = "invalid device context";
      break;
    case CUDA_ERROR_ILLEGAL_ADDRESS:
      *text = "an illegal memory access was encountered";
      break;
    case CUDA_ERROR_NOT_FOUND:
      *text = "named symbol not found";
      break;
    case CUDA_ERROR_NOT_PERMITTED:
      *text = "operation not permitted";
      break;
    case CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED:
      *text = "operation not permitted when stream is capturing";
      break;
    case CUDA_ERROR_STREAM_CAPTURE_IMPLICIT:
      *text = "operation would make the legacy stream depend on a capturing blocking stream";
      break;
    case CUDA_ERROR_PEER_ACCESS_UNSUPPORTED:
      *text = "peer access is not supported between these two devices";
      break;
    case CUDA_ERROR_NOT_SUPPORTED:
      *text = "operation not supported";
      break;
    default:
      *text = "unknown error";
      break;
  }
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
  *count = settings().devices;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (ordinal < 0 || ordinal >= settings().devices) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  std::strncpy(name, ("Fake GPU " + std::to_string(device)).c_str(),
               static_cast<std::size_t>(length));
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  std::strncpy(id, ("0000:" + std::to_string(10 + settings().first + device) + ":00.0").c_str(),
               static_cast<std::size_t>(length));
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  std::memset(uuid, 0, sizeof *uuid);
  uuid->bytes[0] = static_cast<char>(settings().first + device + 1);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *value = 9;
      break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *value = 2;
      break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
      *value = 1;
      break;
    case CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED:
      *value = settings().dma_buf;
      break;
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
      *value = settings().wait_value;
      break;
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED:
      *value = settings().gpu_direct;
      break;
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS:
      *value = settings().flush ? CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST : 0;
      break;
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING:
      *value = settings().writes_ordered ? CU_GPU_DIRECT_RDMA_WRITES_ORDERING_ALL_DEVICES
                                         : CU_GPU_DIRECT_RDMA_WRITES_ORDERING_NONE;
      break;
    default:
      *value = 0;
      break;
  }
  return CUDA_SUCCESS;
}

CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  *can = settings().peer_access && device != peer;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (lost()) return CUDA_ERROR_ILLEGAL_ADDRESS;
  if (device < 0 || device >= settings().devices) return CUDA_ERROR_INVALID_DEVICE;
  *context = context_of(device);
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = current;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  current = context;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
  SLIP_RETURN_UNLESS_READY;
  *device = device_of(current);
  return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned) {
  SLIP_RETURN_UNLESS_READY;
  if (peer == current) return CUDA_ERROR_INVALID_CONTEXT;
  return settings().peer_access ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
}

CUresult cuCtxSynchronize() {
  if (in_host_function) return CUDA_ERROR_NOT_PERMITTED;
  if (current != nullptr) drain(device_of(current));  // of a lost one, too
  return state();
}

CUresult cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget,
                                    CUflushGPUDirectRDMAWritesScope) {
  SLIP_RETURN_UNLESS_READY;
  if (!settings().flush) return CUDA_ERROR_NOT_SUPPORTED;
  if (const auto flush = flush_writes.load()) flush();
  return CUDA_SUCCESS;
}

// ---- Memory.

CUresult cuMemGetInfo(std::size_t* free, std::size_t* total) {
  SLIP_RETURN_UNLESS_READY;
  *free = free_memory(device_of(current));
  *total = settings().memory;
  return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr* address, std::size_t bytes) {
  SLIP_RETURN_UNLESS_READY;
  if (const CUresult s = conflict(); s != CUDA_SUCCESS) return s;
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const std::optional<CUdeviceptr> found = allocate(device_of(current), bytes);
  if (!found) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = *found;
  return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr address) {
  SLIP_RETURN_UNLESS_READY;
  drain(device_of(current));
  return release(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemHostAlloc(void** address, std::size_t bytes, unsigned) {
  SLIP_RETURN_UNLESS_READY;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  pin(memory, bytes);
  *address = memory;
  return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void* address) {
  SLIP_RETURN_UNLESS_READY;
  drain(device_of(current));
  const std::size_t bytes = pinned_bytes(address);
  if (!unpin(address)) return CUDA_ERROR_INVALID_VALUE;
  munmap(address, bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemHostRegister(void* address, std::size_t bytes, unsigned) {
  SLIP_RETURN_UNLESS_READY;
  return pin(address, bytes) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CUresult cuMemHostUnregister(void* address) {
  SLIP_RETURN_UNLESS_READY;
  return unpin(address) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr* address, void* memory, unsigned) {
  SLIP_RETURN_UNLESS_READY;
  if (!pinned(memory)) return CUDA_ERROR_INVALID_VALUE;
  *address = reinterpret_cast<CUdeviceptr>(memory);
  return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) {
  const std::optional<Piece> piece = piece_of(address);
  if (!piece) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = piece->address;
  if (bytes != nullptr) *bytes = piece->asked;
  return CUDA_SUCCESS;
}

CUresult cuMemGetHandleForAddressRange(void* handle, CUdeviceptr address, std::size_t bytes,
                                       CUmemRangeHandleType type, unsigned long long) {
  SLIP_RETURN_UNLESS_READY;
  if (!settings().dma_buf) return CUDA_ERROR_NOT_SUPPORTED;
  const std::optional<Piece> piece = piece_of(address);
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  if (type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD || !piece || piece->address != address ||
      address % page != 0 || bytes % page != 0 || !whole(address, bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *static_cast<int*>(handle) = dup(piece->fd);
  return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  const std::optional<Piece> piece = piece_of(address);
  if (!piece && !pinned(reinterpret_cast<void*>(address))) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(data) = piece ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(data) = piece ? piece->device : 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      *static_cast<int*>(data) = 0;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* attributes, void** values,
                                CUdeviceptr address) {
  if (!piece_of(address) && !pinned(reinterpret_cast<void*>(address))) {
    for (unsigned i = 0; i < count; ++i) *static_cast<int*>(values[i]) = 0;  // all are 4 bytes
    return CUDA_SUCCESS;
  }
  for (unsigned i = 0; i < count; ++i) {
    const CUresult result = cuPointerGetAttribute(values[i], attributes[i], address);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult cuPointerSetAttribute(const void*, CUpointer_attribute, CUdeviceptr address) {
  return piece_of(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr address) {
  SLIP_RETURN_UNLESS_READY;
  return settings().ipc ? export_piece(address, handle) : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuIpcOpenMemHandle(CUdeviceptr* address, CUipcMemHandle handle, unsigned) {
  SLIP_RETURN_UNLESS_READY;
  return settings().ipc_open ? import_piece(device_of(current), handle, address)
                             : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr address) {
  SLIP_RETURN_UNLESS_READY;
  drain(device_of(current));
  return close_piece(address);
}

// ---- Work in streams.

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  SLIP_RETURN_UNLESS_READY;
  *stream = reinterpret_cast<CUstream>(
      new Queue(device_of(current), (flags & CU_STREAM_NON_BLOCKING) == 0));
  return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
  delete reinterpret_cast<Queue*>(stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
  const CUresult now = state();
  if (now != CUDA_SUCCESS && now != CUDA_ERROR_ILLEGAL_ADDRESS) return now;
  Queue& queue = queue_of(stream);
  if (const CUresult s = conflict(&queue); s != CUDA_SUCCESS) return s;
  drain(queue);  // of a lost GPU, too
  return state();
}

CUresult cuStreamQuery(CUstream stream) {
  SLIP_RETURN_UNLESS_READY;
  const Queue& queue = queue_of(stream);
  if (const CUresult s = conflict(&queue); s != CUDA_SUCCESS) return s;
  return queue.idle() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  SLIP_RETURN_UNLESS_READY;
  if (stream == nullptr || stream == CU_STREAM_LEGACY) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return begin_capture(queue_of(stream), mode);
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  SLIP_RETURN_UNLESS_READY;
  *graph = nullptr;  // of nothing
  return end_capture(queue_of(stream));
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  *mode = exchange_capture_mode(*mode);
  return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  SLIP_RETURN_UNLESS_READY;
  const Marker marker = marker_of(event);
  queue_of(stream).enqueue([marker, n = marker.now().recorded] { marker.wait(n); });
  return CUDA_SUCCESS;
}

CUresult cuStreamWaitValue64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                             unsigned flags) {
  SLIP_RETURN_UNLESS_READY;
  if (!settings().wait_value) return CUDA_ERROR_NOT_SUPPORTED;
  if (pageable(address)) return CUDA_ERROR_INVALID_VALUE;
  auto* word = reinterpret_cast<std::uint64_t*>(reach(address));
  queue_of(stream).enqueue([word, value, comparison = flags & 3] {
    wait_until([&] {
      const std::uint64_t now = std::atomic_ref(*word).load(std::memory_order_acquire);
      if (comparison == CU_STREAM_WAIT_VALUE_EQ) return now == value;
      if (comparison == CU_STREAM_WAIT_VALUE_AND) return (now & value) != 0;
      if (comparison == CU_STREAM_WAIT_VALUE_NOR) return ~(now | value) != 0;
      return static_cast<std::int64_t>(now - value) >= 0;
    });
  });
  return CUDA_SUCCESS;
}

CUresult cuStreamWriteValue64(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned) {
  SLIP_RETURN_UNLESS_READY;
  if (!settings().wait_value) return CUDA_ERROR_NOT_SUPPORTED;
  if (pageable(address)) return CUDA_ERROR_INVALID_VALUE;
  auto* word = reinterpret_cast<std::uint64_t*>(reach(address));
  queue_of(stream).enqueue(
      [word, value] { std::atomic_ref(*word).store(value, std::memory_order_release); });
  return CUDA_SUCCESS;
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* argument) {
  SLIP_RETURN_UNLESS_READY;
  queue_of(stream).enqueue([=] {
    in_host_function = true;
    function(argument);
    in_host_function = false;
  });
  return CUDA_SUCCESS;
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  SLIP_RETURN_UNLESS_READY;
  if (!whole(to, bytes) || !whole(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  Queue& queue = queue_of(stream);
  const bool waits = pageable(to);
  if (waits) {
    if (const CUresult s = conflict(&queue); s != CUDA_SUCCESS) return s;
  }
  std::byte* const target = reach(to);
  if (pageable(from)) {  // taken before this returns
    const auto* source = reinterpret_cast<const std::byte*>(from);
    queue.enqueue([taken = std::vector<std::byte>(source, source + bytes), target] {
      std::memcpy(target, taken.data(), taken.size());
    });
  } else {
    queue.enqueue([target, source = reach(from), bytes] { std::memmove(target, source, bytes); });
  }
  if (waits) drain(queue);  // of a lost GPU, too
  return waits ? state() : CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr address, unsigned char value, std::size_t bytes,
                         CUstream stream) {
  SLIP_RETURN_UNLESS_READY;
  if (!piece_of(address) || !whole(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  queue_of(stream).enqueue(
      [target = reach(address), value, bytes] { std::memset(target, value, bytes); });
  return CUDA_SUCCESS;
}

// ---- Events.

CUresult cuEventCreate(CUevent* event, unsigned) {
  SLIP_RETURN_UNLESS_READY;
  *event = reinterpret_cast<CUevent>(new Marker);
  return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
  delete reinterpret_cast<Marker*>(event);
  return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  SLIP_RETURN_UNLESS_READY;
  marker_of(event).record(queue_of(stream));
  return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent event) {
  SLIP_RETURN_UNLESS_READY;
  if (const CUresult s = conflict(); s != CUDA_SUCCESS) return s;
  const Mark mark = marker_of(event).now();
  return mark.done >= mark.recorded ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent begin, CUevent end) {
  SLIP_RETURN_UNLESS_READY;
  const std::chrono::duration<float, std::milli> between =
      marker_of(end).now().at - marker_of(begin).now().at;
  *milliseconds = between.count();
  return CUDA_SUCCESS;
}

// ---- Kernels.

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  SLIP_RETURN_UNLESS_READY;
  if (!is_fat_binary(image)) return CUDA_ERROR_INVALID_IMAGE;
  drain(device_of(current));  // as the real one may
  *module = reinterpret_cast<CUmodule>(current);
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
  SLIP_RETURN_UNLESS_READY;
  const Kernel kernel = find_kernel(name);
  if (kernel == nullptr) return CUDA_ERROR_NOT_FOUND;
  *function = reinterpret_cast<CUfunction>(kernel);
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned, unsigned, unsigned, unsigned threads,
                        unsigned, unsigned, unsigned, CUstream stream, void** parameters, void**) {
  SLIP_RETURN_UNLESS_READY;
  if (threads == 0 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
  Queue& queue = queue_of(stream);
  const auto work = reinterpret_cast<Kernel>(function)(queue.device(), parameters);
  queue.enqueue([work] {
    if (launched++ >= settings().lost_after) {
      lost() = true;
      return;
    }
    work();
  });
  return CUDA_SUCCESS;
}

// ---- For the fake network device (tests/rdma/fake_verbs).

/// Where that device finds what has this address; null: it is the host's.
std::byte* fake_cuda_memory(void* address) {
  const auto at = reinterpret_cast<CUdeviceptr>(address);
  return piece_of(at) ? reach(at) : nullptr;
}

/// It holds what it writes into memory of GPUs back until this is called. False: it need not.
bool fake_cuda_on_flush(void (*flush)()) {
  flush_writes = flush;
  return !settings().writes_ordered;
}

// ---- For tests.

/// All GPUs of this process are lost from now on.
void fake_cuda_lose_gpus() { lost() = true; }

/// Pieces of work that were enqueued on a stream so far.
std::size_t fake_cuda_enqueued(CUstream stream) { return queue_of(stream).enqueued(); }

/// All calls of that name fail from now on; null: none does.
void fake_cuda_fail(const char* call) { failing = call; }

}  // extern "C"
