#pragma once

#include "slipstream/base/error.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/transport/stream_places_internal.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// Calls that follow what is enqueued on a stream, each with its own arguments. A call is run by a
/// thread of the driver and must not call CUDA.
template <class Call>
class StreamCalls : public StreamPlaces<Call> {
 public:
  using StreamPlaces<Call>::StreamPlaces;
  using typename StreamPlaces<Call>::Place;

  /// Of a place that was claimed and filled.
  Status enqueue(Place& place, const gpu::Stream& stream) {
    Status status = stream.then(&run, &place);
    if (!status) StreamCalls::give_back(place);
    return status;
  }

 private:
  static void run(void* argument) {
    auto& place = *static_cast<Place*>(argument);
    place.item();
    StreamCalls::give_back(place);
  }
};

}  // namespace slip

#pragma GCC visibility pop
