#include <cuda.h>
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "fake_cuda/device_memory.h"
#include "fake_cuda/settings.h"
#include "meeting.h"
#include "settings.h"

// The functions of NCCL, each as its documentation says, for as much of it as is used.

using namespace fake_nccl;

namespace {

std::atomic<int> alive{0};     // communicators
std::atomic<int> made{0};      // that have connected
std::atomic<int> aborted{0};   // communicators
std::atomic<int> averages{0};  // that were begun

}  // namespace

struct ncclComm {
  int size = 0;
  int rank = 0;
  CUcontext context = nullptr;
  std::shared_ptr<Meeting> meeting;
  std::atomic<ncclResult_t> state{ncclInProgress};
  std::atomic<bool> aborted{false};
  std::atomic<int> enqueued{0};  // collectives that have not ended
  bool finalized = false;
  std::thread thread;  // of the call under way

  ncclComm() { ++alive; }
  ~ncclComm() {
    if (thread.joinable()) thread.join();
    --alive;
  }

  /// False: it was aborted meanwhile, or the GPU is lost.
  template <class Condition>
  bool wait_until(const Condition& condition) const {
    while (!condition()) {
      if (aborted || fake_cuda::lost()) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    return true;
  }

  /// A call that goes on when it has returned, as all of a communicator that does not block.
  template <class Work>
  ncclResult_t start(Work work) {
    if (thread.joinable()) thread.join();
    state = ncclInProgress;
    thread = std::thread([this, work] {
      cuCtxSetCurrent(context);
      const ncclResult_t result = work();
      // An error that came meanwhile stays.
      ncclResult_t before = ncclInProgress;
      state.compare_exchange_strong(before, result);
    });
    return ncclInProgress;
  }

  bool barrier() {
    const std::uint64_t step = ++meeting->steps[rank];
    return wait_until([&] {
      return std::all_of(meeting->steps, meeting->steps + size,
                         [step](const auto& other) { return other >= step; });
    });
  }

  template <class T>
  void average(const T* from, T* to, std::size_t count) {
    constexpr std::size_t most = chunk_bytes / sizeof(T);
    for (std::size_t first = 0; first < count; first += most) {
      const std::size_t n = std::min(most, count - first);
      std::memcpy(meeting->chunks[rank], from + first, n * sizeof(T));
      if (!barrier()) return;
      for (std::size_t i = 0; i < n; ++i) {
        T sum = 0;
        for (int r = size - 1; r >= 0; --r) {
          sum += reinterpret_cast<const T*>(meeting->chunks[r])[i];
        }
        to[first + i] = sum / static_cast<T>(size);
      }
      if (!barrier()) return;
    }
  }
};

namespace {

struct Collective {
  ncclComm* communicator;
  std::function<void()> work;
};

/// On the stream.
void run(void* argument) {
  const std::unique_ptr<Collective> collective(static_cast<Collective*>(argument));
  ncclComm& communicator = *collective->communicator;
  collective->work();
  --communicator.enqueued;
}

bool within_a_gpu(const void* data, std::size_t bytes, CUcontext context) {
  const auto address = reinterpret_cast<CUdeviceptr>(data);
  const std::optional<fake_cuda::Piece> piece = fake_cuda::piece_of(address);
  CUdevice device = 0;
  cuCtxSetCurrent(context);
  return cuCtxGetDevice(&device) == CUDA_SUCCESS && piece && piece->device == device &&
         bytes <= piece->address + piece->asked - address;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = settings().version;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclInvalidUsage:
      return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case ncclInvalidArgument:
      return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclSystemError:
      return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    default:
      return "another result";
  }
}

const char* ncclGetLastError(ncclComm_t) { return "said by fake_nccl"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  return make_meeting(id) ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config == nullptr || config->magic != 0xcafebeef || config->size < sizeof(std::size_t) ||
      config->blocking != 0 || ranks < 1 || ranks > most_ranks || rank < 0 || rank >= ranks) {
    return ncclInvalidArgument;
  }
  CUdevice device = 0;
  if (cuCtxGetDevice(&device) != CUDA_SUCCESS) return ncclUnhandledCudaError;
  auto* made_now = new ncclComm;
  made_now->size = ranks;
  made_now->rank = rank;
  cuCtxGetCurrent(&made_now->context);
  *communicator = made_now;
  return made_now->start([made_now, id, device] {
    ncclComm& c = *made_now;
    c.meeting = open_meeting(id);
    if (!c.meeting) return ncclSystemError;
    if (settings().init_hangs) c.wait_until([] { return false; });
    c.meeting->devices[c.rank] = device;
    ++c.meeting->joined;
    if (!c.wait_until([&] { return c.meeting->joined == c.size; })) return ncclInternalError;
    for (int other = 0; other < c.size; ++other) {
      if (other != c.rank && c.meeting->devices[other] == device) return ncclInvalidUsage;
    }
    ++made;
    return ncclSuccess;
  });
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
  if (communicator == nullptr) return ncclInvalidArgument;
  *state = communicator->state;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t communicator, cudaStream_t stream) {
  ncclComm& c = *communicator;
  const std::size_t bytes = count * (type == ncclFloat32 ? sizeof(float) : sizeof(double));
  if (c.state != ncclSuccess || c.finalized) return ncclInvalidUsage;
  if (operation != ncclAvg || (type != ncclFloat32 && type != ncclFloat64) ||
      !within_a_gpu(from, bytes, c.context) || !within_a_gpu(to, bytes, c.context)) {
    return ncclInvalidArgument;
  }
  const int number = ++averages;
  const auto work = [&c, from, to, count, type, number] {
    const auto never = [] { return false; };
    if (number == settings().hang_at) {
      c.wait_until(never);
    } else if (number == settings().fail_at) {
      c.state = ncclRemoteError;
      c.wait_until(never);
    } else if (type == ncclFloat32) {
      c.average(static_cast<const float*>(fake_cuda::reach(from)),
                static_cast<float*>(fake_cuda::reach(to)), count);
    } else {
      c.average(static_cast<const double*>(fake_cuda::reach(from)),
                static_cast<double*>(fake_cuda::reach(to)), count);
    }
  };
  return c.start([&c, work, stream] {
    ++c.enqueued;
    auto* collective = new Collective{&c, work};
    if (cuLaunchHostFunc(stream, &run, collective) == CUDA_SUCCESS) return ncclSuccess;
    delete collective;
    --c.enqueued;
    return ncclUnhandledCudaError;
  });
}

/// Waits for all members, as within a host the real one does.
ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
  ncclComm& c = *communicator;
  if (c.state != ncclSuccess || c.finalized) return ncclInvalidUsage;
  c.finalized = true;
  return c.start([&c] {
    if (!c.wait_until([&] { return c.enqueued == 0; })) return ncclInternalError;
    ++c.meeting->left;
    return c.wait_until([&] { return c.meeting->left == c.size; }) ? ncclSuccess
                                                                   : ncclInternalError;
  });
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  if (!communicator->finalized || communicator->state != ncclSuccess) return ncclInvalidUsage;
  delete communicator;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  if (communicator == nullptr) return ncclSuccess;
  ++aborted;
  communicator->aborted = true;
  if (communicator->thread.joinable()) communicator->thread.join();
  while (communicator->enqueued > 0 && !fake_cuda::lost()) {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  if (settings().abort_hangs) {
    for (;;) pause();
  }
  if (!fake_cuda::lost()) delete communicator;  // else calls may hold it still
  return ncclSuccess;
}

// ---- For tests.

int fake_nccl_alive() { return alive; }
int fake_nccl_made() { return made; }
int fake_nccl_aborted() { return aborted; }
int fake_nccl_averages() { return averages; }

}  // extern "C"
