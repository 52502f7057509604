#include "capture.h"

#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace fake_cuda {
namespace {

struct Capture {
  CUstreamCaptureMode mode;
  std::thread::id thread;
  bool invalidated = false;
};

struct Captures {
  std::mutex mutex;
  std::map<const Queue*, Capture> all;
};

Captures& captures() {
  static Captures& known = *new Captures;  // threads may outlive what is static
  return known;
}

thread_local CUstreamCaptureMode mode_here = CU_STREAM_CAPTURE_MODE_GLOBAL;

/// As cuThreadExchangeStreamCaptureMode has it.
bool prohibits_unsafe_calls(const Capture& capture) {
  if (mode_here == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
  if (capture.thread == std::this_thread::get_id()) {
    return capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED;
  }
  return mode_here == CU_STREAM_CAPTURE_MODE_GLOBAL &&
         capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
}

}  // namespace

CUresult begin_capture(const Queue& queue, CUstreamCaptureMode mode) {
  const std::lock_guard lock(captures().mutex);
  const bool is_new =
      captures().all.try_emplace(&queue, Capture{mode, std::this_thread::get_id()}).second;
  return is_new ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_STATE;
}

CUresult end_capture(const Queue& queue) {
  const std::lock_guard lock(captures().mutex);
  const auto ended = captures().all.extract(&queue);
  if (ended.empty()) return CUDA_ERROR_ILLEGAL_STATE;
  return ended.mapped().invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}

CUstreamCaptureMode exchange_capture_mode(CUstreamCaptureMode mode) {
  return std::exchange(mode_here, mode);
}

CUresult conflict(const Queue* queue) {
  const std::lock_guard lock(captures().mutex);
  const bool is_legacy = queue != nullptr && queue == &Queue::default_of(queue->device());
  CUresult result = CUDA_SUCCESS;
  for (auto& [captured, capture] : captures().all) {
    const bool is_implicit =
        is_legacy && captured->blocking() && captured->device() == queue->device();
    if (captured != queue && !is_implicit && !prohibits_unsafe_calls(capture)) continue;
    capture.invalidated = true;
    result =
        is_implicit ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return result;
}

}  // namespace fake_cuda
