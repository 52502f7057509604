#include "slipstream/collectives/partial_all_reduce.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "slipstream/collectives/partial_all_reduce_internal.h"

namespace slip {
namespace partial_all_reduce {
namespace {

// Measured with two workers on one host: from here on it is faster to synchronise twice and move
// less.
constexpr std::size_t one_shot_bytes = 1024;

}  // namespace

Layout::Layout(int workers, std::size_t count, Dtype dtype, const PartialAllReduceOptions& options)
    : workers(workers),
      count(count),
      dtype(dtype),
      in_one_shot(workers == 1 || vector_bytes() <= one_shot_bytes),
      // One shot writes the vector when everything has come.
      buffers(options.in_place || in_one_shot ? 1 : 2),
      word_offset(round_up(vector_bytes(), sizeof(Word))),
      lane_bytes(in_one_shot ? round_up(word_offset + sizeof(Word), line) : 0) {}

std::size_t Layout::bytes() const {
  return buffer(buffers) + static_cast<std::size_t>(workers - 1) * 2 * lane_bytes;
}

}  // namespace partial_all_reduce

using partial_all_reduce::Layout;
using partial_all_reduce::OneShot;
using partial_all_reduce::Operation;
using partial_all_reduce::TwoShot;
using partial_all_reduce::Windows;

class PartialAllReduce::Impl {
 public:
  Impl(const World& world, std::string_view name, const Layout& layout, Windows::Wait wait)
      : layout_(layout),
        windows_(world, name, layout.bytes(), std::move(wait)),
        one_shot_(windows_, layout_),
        two_shot_(windows_, layout_) {
    operation_.others.reserve(static_cast<std::size_t>(world.size()));
  }

  VectorView buffer() const {
    return {windows_.region().data() + layout_.buffer(current_), layout_.count, layout_.dtype};
  }
  bool has_waited() const { return windows_.has_waited(); }

  Status announce(const Group& group) {
    if (Status s = check(group); !s) return s;
    if (Status s = prepare(group); !s) return fail(s);
    announced_ = group.sequence;
    return {};
  }

  Status mean(const Group& group, VectorView vector) {
    if (Status s = check(vector); !s) return s;
    return mean_of(group, vector);
  }

  Status mean_of(const Group& group, VectorView vector) {
    if (Status s = check(group); !s) return s;
    if (Status s = prepare(group); !s) return fail(s);
    last_ = group.sequence;
    if (operation_.others.empty()) return {};  // the mean of one
    if (layout_.in_one_shot) {
      const Status status = one_shot_.mean(operation_, vector);
      return status ? status : fail(status);
    }
    if (Status s = two_shot_.mean(operation_, vector, current_); !s) return fail(s);
    if (vector.data == buffer().data) current_ = layout_.buffers - 1 - current_;
    return {};
  }

 private:
  /// What is wrong with a call damages nothing. What else fails is for good.
  Status fail(const Status& status) {
    failure_ = status;
    windows_.give_up(status);
    return status;
  }

  Status check(const Group& group) const;
  Status check(VectorView vector) const;
  Status prepare(const Group& group);

  const Layout layout_;
  Windows windows_;
  OneShot one_shot_;
  TwoShot two_shot_;
  Operation operation_;
  unsigned current_ = 0;  // the buffer that has this worker's vector
  std::uint64_t last_ = 0;
  std::uint64_t announced_ = 0;
  Status failure_;
};

Status PartialAllReduce::Impl::check(const Group& group) const {
  if (!failure_) [[unlikely]]
    return failure_;
  const int rank = windows_.world().rank();
  const bool pending = announced_ > last_;
  if (pending ? group.sequence != announced_ : group.sequence <= last_) [[unlikely]] {
    return {Code::invalid_argument, pending
                                        ? fmt::format("rank {}: group {} where {} was announced",
                                                      rank, group.sequence, announced_)
                                        : fmt::format("rank {}: group {} after {}; sequences rise",
                                                      rank, group.sequence, last_)};
  }
  const std::vector<int>& members = group.members;
  bool valid = !members.empty() && members.front() >= 0 && members.back() < layout_.workers;
  bool is_member = false;
  for (std::size_t i = 0; i < members.size(); ++i) {
    valid = valid && (i == 0 || members[i - 1] < members[i]);
    is_member = is_member || members[i] == rank;
  }
  if (valid && is_member) [[likely]]
    return {};
  return {Code::invalid_argument,
          fmt::format("rank {}: group {} has the members {}; allowed are ranks below {} in "
                      "ascending order, this one among them",
                      rank, group.sequence, fmt::join(members, " "), layout_.workers)};
}

Status PartialAllReduce::Impl::check(VectorView vector) const {
  if (vector.count != layout_.count || vector.dtype != layout_.dtype) [[unlikely]] {
    return {
        Code::invalid_argument,
        fmt::format("an all-reduce of {} elements of {} bytes was given {} of {}", layout_.count,
                    size_of(layout_.dtype), vector.count, size_of(vector.dtype))};
  }
  const auto* data = static_cast<const std::byte*>(vector.data);
  const std::byte* const begin = windows_.region().data();
  const bool registered = data >= begin && data < begin + windows_.region().bytes();
  if (registered && (layout_.buffers > 1 || data != buffer().data)) [[unlikely]] {
    return {Code::invalid_argument,
            "buffer() is averaged by mean(group), which moves it unless in_place"};
  }
  return {};
}

Status PartialAllReduce::Impl::prepare(const Group& group) {
  const std::vector<int>& members = group.members;
  const auto own = std::lower_bound(members.begin(), members.end(), windows_.world().rank());
  operation_.sequence = group.sequence;
  operation_.place = static_cast<std::size_t>(own - members.begin());
  operation_.others.clear();
  // Everybody begins with its right-hand neighbour, so that nobody is served by all at once.
  for (std::size_t i = 1; i < members.size(); ++i) {
    const std::size_t place = (operation_.place + i) % members.size();
    partial_all_reduce::Peer* peer = nullptr;
    if (Status s = windows_.meet(members[place], &peer); !s) return s;
    operation_.others.push_back({peer, place});
  }
  const bool announced = announced_ == group.sequence;
  return announced || layout_.in_one_shot ? Status() : two_shot_.announce(operation_);
}

PartialAllReduce::PartialAllReduce(const World& world, std::string_view name, std::size_t count,
                                   Dtype dtype, PartialAllReduceOptions options)
    : impl_(std::make_unique<Impl>(world, name, Layout(world.size(), count, dtype, options),
                                   std::move(options.wait))) {}

PartialAllReduce::~PartialAllReduce() = default;
PartialAllReduce::PartialAllReduce(PartialAllReduce&&) noexcept = default;
PartialAllReduce& PartialAllReduce::operator=(PartialAllReduce&&) noexcept = default;

std::size_t PartialAllReduce::memory(int workers, std::size_t count, Dtype dtype,
                                     PartialAllReduceOptions options) {
  const Layout layout(workers, count, dtype, options);
  const std::size_t lines = static_cast<std::size_t>(workers - 1) * partial_all_reduce::line;
  const std::size_t lanes = layout.in_one_shot ? 0 : lines + TwoShot::lanes_bytes(layout);
  return layout.bytes() + lines + lanes;
}

VectorView PartialAllReduce::buffer() const { return impl_->buffer(); }
Status PartialAllReduce::announce(const Group& group) { return impl_->announce(group); }
Status PartialAllReduce::mean(const Group& group) { return impl_->mean_of(group, impl_->buffer()); }
Status PartialAllReduce::mean(const Group& group, VectorView vector) {
  return impl_->mean(group, vector);
}
bool PartialAllReduce::has_waited() const { return impl_->has_waited(); }

}  // namespace slip
