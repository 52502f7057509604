#include "slipstream/collectives/all_reduce.h"

#include <fmt/format.h>

#include "slipstream/collectives/all_reduce_internal.h"

namespace slip {
namespace all_reduce {

RemoteRegion Algorithm::attach(int peer, std::string_view name, std::size_t bytes) const {
  RemoteRegion region = world_.attach(peer, name);
  if (region.bytes >= bytes) return region;
  throw Error(Code::peer_mismatch,
              fmt::format("all-reduce '{}': rank {} has {} bytes and rank {} has {}; do both have "
                          "the same count and type?",
                          name_, peer, region.bytes, world_.rank(), bytes),
              peer);
}

Status Algorithm::wait_for(int peer, FunctionRef<bool()> arrived) {
  max_lead_ = 1;
  const Status status = world_.wait_until(arrived, world_.deadline(), "an all-reduce");
  if (status.code() != Code::timeout) return status;
  return {Code::timeout,
          fmt::format("{} '{}': nothing has come from rank {}", status.message(), name_, peer),
          peer};
}

namespace {

// Measured with two workers on one host: from here on it is faster to synchronise twice and move
// less.
constexpr std::size_t one_shot_bytes = 1024;

bool in_one_shot(int workers, std::size_t bytes) { return workers == 1 || bytes <= one_shot_bytes; }

}  // namespace
}  // namespace all_reduce

AllReduce::AllReduce(const World& world, std::string_view name, std::size_t count, Dtype dtype)
    : algorithm_(all_reduce::in_one_shot(world.size(), count * size_of(dtype))
                     ? all_reduce::make_one_shot(world, name, count, dtype)
                     : all_reduce::make_two_shot(world, name, count, dtype)) {}

AllReduce::~AllReduce() = default;
AllReduce::AllReduce(AllReduce&&) noexcept = default;
AllReduce& AllReduce::operator=(AllReduce&&) noexcept = default;

std::size_t AllReduce::memory(int workers, std::size_t count, Dtype dtype) {
  const std::size_t bytes = count * size_of(dtype);
  return all_reduce::in_one_shot(workers, bytes) ? all_reduce::one_shot_memory(workers, bytes)
                                                 : all_reduce::two_shot_memory(workers, bytes);
}

VectorView AllReduce::buffer() const { return algorithm_->buffer(); }
Iteration AllReduce::max_lead() const { return algorithm_->max_lead(); }

Status AllReduce::mean() { return mean(buffer()); }

Status AllReduce::mean(VectorView vector) {
  if (!failure_) [[unlikely]]
    return failure_;
  const VectorView expected = buffer();
  if (vector.count != expected.count || vector.dtype != expected.dtype) [[unlikely]] {
    return {
        Code::invalid_argument,
        fmt::format("an all-reduce of {} elements of {} bytes was given {} of {}", expected.count,
                    size_of(expected.dtype), vector.count, size_of(vector.dtype))};
  }
  Status status = algorithm_->mean(vector, ++number_);
  if (!status) [[unlikely]]
    failure_ = status;
  return status;
}

}  // namespace slip
