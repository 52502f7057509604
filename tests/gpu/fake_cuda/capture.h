#pragma once

#include <cuda.h>

#include "queue.h"

/// Captures of streams, as far as calls can break them: what is enqueued meanwhile is done at once
/// and kept nowhere.
namespace fake_cuda {

CUresult begin_capture(const Queue& queue, CUstreamCaptureMode mode);
/// What it has come to.
CUresult end_capture(const Queue& queue);

/// The mode of this thread from now on; returns the one until now.
CUstreamCaptureMode exchange_capture_mode(CUstreamCaptureMode mode);

/// What a call says that would wait for the host or ask for progress, of `queue` or of none; the
/// captures that it conflicts with are invalidated.
CUresult conflict(const Queue* queue = nullptr);

}  // namespace fake_cuda
