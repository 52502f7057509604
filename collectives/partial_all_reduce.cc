#include "slipstream/collectives/partial_all_reduce.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "slipstream/collectives/nccl_groups_internal.h"
#include "slipstream/collectives/partial_all_reduce_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip {
using partial_all_reduce::Hierarchical;
using partial_all_reduce::Layout;
using partial_all_reduce::NcclGroups;
using partial_all_reduce::OneShot;
using partial_all_reduce::Operation;
using partial_all_reduce::Packing;
using partial_all_reduce::Staging;
using partial_all_reduce::TwoShot;
using partial_all_reduce::Windows;

class __attribute__((visibility("hidden"))) PartialAllReduce::Impl {
 public:
  Impl(const World& world, std::string_view name, const Layout& layout,
       const PartialAllReduceOptions& options)
      : layout_(layout),
        algorithm_(options.algorithm),
        costs_(options.costs ? *options.costs : cost_model(world)),
        windows_(world, name, layout.bytes(), options),
        staging_(windows_, layout_),
        packing_(layout_),
        one_shot_(windows_, layout_),
        two_shot_(windows_, layout_, staging_, packing_),
        hierarchical_(windows_, layout_, staging_, packing_) {
    const auto workers = static_cast<std::size_t>(world.size());
    operation_.others.reserve(workers);
    for (int rank = 0; rank < world.size(); ++rank) {
      const auto host = static_cast<std::size_t>(world.host_of(rank));
      if (host >= on_host_.size()) on_host_.resize(host + 1);
    }
    // Found out now, with all others, and not in an operation.
    if (on_host_.size() > 1 && on_host_.size() < workers) (void)world.topology();
    if (options.in_background) windows_.meet_all(layout_.has_others ? layout_.lanes_bytes() : 0);
    if (algorithm_ == Algorithm::nccl) nccl_.emplace(windows_, name, layout_.device);
  }

  Algorithm algorithm(const Group& group) {
    const GroupShape shape = shape_of(group);
    if (shape != shape_) {
      shape_ = shape;
      own_ = choose(shape);
    }
    return nccl_ && nccl_->averages(group) ? Algorithm::nccl : own_;
  }

  GroupShape shape_of(const Group& group);
  bool possible(Algorithm algorithm, const GroupShape& shape) const;

  VectorView buffer() const { return buffer(current_); }
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
    if (group.members.size() == 1) return {};  // the mean of one
    if (Status s = run(vector); !s) return fail(s);
    if (chosen_ == Algorithm::one_shot) return {};
    if (vector.data == buffer().data) current_ = other_buffer();
    return {};
  }

 private:
  /// What is wrong with a call damages nothing. What else fails is for good.
  Status fail(const Status& status) {
    failure_ = status;
    windows_.give_up(status);
    if (nccl_) nccl_->abort();
    return status;
  }

  VectorView buffer(unsigned which) const {
    return layout_.view(windows_.region().data() + layout_.buffer(which), layout_.count);
  }
  unsigned other_buffer() const { return layout_.buffers - 1 - current_; }

  Status run(VectorView vector) {
    if (!nccl_) return run_own(vector);
    if (chosen_ == Algorithm::nccl) return run_nccl(vector);
    if (Status s = nccl_->begin(operation_); !s) return s;
    if (Status s = run_own(vector); !s) return s;
    // The mean is there; what fails now is for the next call to say.
    if (Status s = nccl_->end(operation_); !s) (void)fail(s);
    return {};
  }

  Status run_own(VectorView vector) {
    switch (chosen_) {
      case Algorithm::one_shot:
        return one_shot_.mean(operation_, vector);
      case Algorithm::hierarchical:
        return hierarchical_.mean(vector, current_);
      default:
        return two_shot_.mean(operation_, vector, current_);
    }
  }

  /// The mean comes beside the vector, too, unless in place.
  Status run_nccl(VectorView vector) {
    const bool is_users = vector.data != buffer().data;
    const bool in_place = layout_.buffers == 1;
    const VectorView mean = in_place ? vector : buffer(is_users ? current_ : other_buffer());
    if (Status s = nccl_->mean(operation_, vector, mean); !s) return s;
    if (is_users && !in_place) kernels::copy(vector, mean);
    return {};
  }

  Algorithm choose(const GroupShape& shape) const;
  Status check(const Group& group) const;
  Status check(VectorView vector) const;
  Status prepare(const Group& group);

  const Layout layout_;
  const Algorithm algorithm_;
  const CostModel costs_;
  Windows windows_;
  Staging staging_;
  Packing packing_;
  OneShot one_shot_;
  TwoShot two_shot_;
  Hierarchical hierarchical_;
  std::optional<NcclGroups> nccl_;  // where it was asked for
  std::vector<int> on_host_;        // members of the group at hand; zero in between
  GroupShape shape_;                // of the last group, for which was
  Algorithm own_ = Algorithm::two_shot;
  Algorithm chosen_ = Algorithm::two_shot;  // for the operation
  Operation operation_;
  unsigned current_ = 0;  // the buffer that has this worker's vector
  std::uint64_t last_ = 0;
  std::uint64_t announced_ = 0;
  Status failure_;
};

GroupShape PartialAllReduce::Impl::shape_of(const Group& group) {
  GroupShape shape{.members = static_cast<int>(group.members.size()),
                   .per_host = static_cast<int>(group.members.size())};
  if (on_host_.size() <= 1) return shape;
  shape.hosts = shape.per_host = 0;
  const auto count = [&](int rank) -> int& {
    return on_host_[static_cast<std::size_t>(windows_.world().host_of(rank))];
  };
  for (const int rank : group.members) {
    const int members = ++count(rank);
    shape.hosts += members == 1;
    shape.per_host = std::max(shape.per_host, members);
  }
  for (const int rank : group.members) count(rank) = 0;
  if (shape.hosts > 1 && shape.per_host > 1) shape.rails = hierarchical_.rails(group);
  return shape;
}

bool PartialAllReduce::Impl::possible(Algorithm algorithm, const GroupShape& shape) const {
  if (algorithm == Algorithm::one_shot) return layout_.has_one_shot;
  if (algorithm == Algorithm::two_shot) return layout_.has_others;
  if (algorithm == Algorithm::nccl) return nccl_.has_value();
  return layout_.has_others && shape.hosts > 1 && shape.per_host > 1 &&
         Hierarchical::fits(layout_, shape);
}

/// The cheapest of our own that are possible.
Algorithm PartialAllReduce::Impl::choose(const GroupShape& shape) const {
  Algorithm best = layout_.has_others ? Algorithm::two_shot : Algorithm::one_shot;
  if (algorithm_ != Algorithm::automatic && algorithm_ != Algorithm::nccl) {
    return possible(algorithm_, shape) ? algorithm_ : best;
  }
  const auto seconds = [&](Algorithm algorithm) {
    return costs_.seconds(algorithm, layout_.vector_bytes(), shape);
  };
  for (const Algorithm other : {Algorithm::one_shot, Algorithm::hierarchical}) {
    if (possible(other, shape) && seconds(other) < seconds(best)) best = other;
  }
  return best;
}

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
  if (vector.device != layout_.device) [[unlikely]] {
    return {Code::invalid_argument,
            fmt::format("rank {}: an all-reduce of {} was given {}", windows_.world().rank(),
                        gpu::describe(layout_.device), gpu::describe(vector.device))};
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
  const bool announced = announced_ == group.sequence;
  chosen_ = algorithm(group);
  if (nccl_) nccl_->enter(group);
  if (chosen_ == Algorithm::hierarchical) {
    if (Status s = hierarchical_.prepare(group, shape_); !s) return s;
    if (!announced) {
      if (Status s = hierarchical_.announce(); !s) return s;
    }
    if (!nccl_) return {};
  }
  // Everybody begins with its right-hand neighbour, so that nobody is served by all at once.
  for (std::size_t i = 1; i < members.size(); ++i) {
    const std::size_t place = (operation_.place + i) % members.size();
    partial_all_reduce::Peer* peer = nullptr;
    if (Status s = windows_.meet(members[place], &peer); !s) return s;
    operation_.others.push_back({peer, place});
  }
  return announced || chosen_ != Algorithm::two_shot ? Status() : two_shot_.announce(operation_);
}

Options describe(Algorithm& algorithm, Wire& wire) {
  return Options()
      .add(
          "algorithm", algorithm, {"automatic", "one-shot", "two-shot", "hierarchical", "nccl"},
          "how groups average; automatic: by size and group, as a model of their costs says; nccl: "
          "on GPUs, groups that repeat")
      .add("wire", wire, {"exact", "bf16"}, "what a transport carries; bf16: half of a float");
}

PartialAllReduce::PartialAllReduce(const World& world, std::string_view name, std::size_t count,
                                   Dtype dtype, PartialAllReduceOptions options)
    : impl_(std::make_unique<Impl>(world, name, Layout(world.size(), count, dtype, options),
                                   options)) {}

PartialAllReduce::~PartialAllReduce() = default;
PartialAllReduce::PartialAllReduce(PartialAllReduce&&) noexcept = default;
PartialAllReduce& PartialAllReduce::operator=(PartialAllReduce&&) noexcept = default;

std::size_t PartialAllReduce::memory(int workers, std::size_t count, Dtype dtype,
                                     PartialAllReduceOptions options) {
  const Layout layout(workers, count, dtype, options);
  const std::size_t lines = static_cast<std::size_t>(workers - 1) * line;
  const std::size_t lanes = layout.has_others ? lines + layout.lanes_bytes() : 0;
  return layout.bytes() + lines + lanes;
}

GroupShape PartialAllReduce::shape(const Group& group) const { return impl_->shape_of(group); }
bool PartialAllReduce::possible(Algorithm algorithm, const Group& group) const {
  return impl_->possible(algorithm, impl_->shape_of(group));
}
Algorithm PartialAllReduce::algorithm(const Group& group) const { return impl_->algorithm(group); }
VectorView PartialAllReduce::buffer() const { return impl_->buffer(); }
Status PartialAllReduce::announce(const Group& group) { return impl_->announce(group); }
Status PartialAllReduce::mean(const Group& group) { return impl_->mean_of(group, impl_->buffer()); }
Status PartialAllReduce::mean(const Group& group, VectorView vector) {
  return impl_->mean(group, vector);
}
bool PartialAllReduce::has_waited() const { return impl_->has_waited(); }

}  // namespace slip
