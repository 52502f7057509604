#include "slipstream/collectives/partial_all_reduce.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "slipstream/c_api/handles_internal.h"

using slip::guarded;
using slip::c_api::given;

struct slip_partial_all_reduce {
  slip::PartialAllReduce reduce;
  std::size_t count;
  slip::Dtype dtype;
  slip::Group group;  // of the call; kept for its memory
};

namespace {

const slip::Group& group_of(slip_partial_all_reduce& reduce, uint64_t sequence, const int* members,
                            size_t count) {
  reduce.group.sequence = sequence;
  reduce.group.members.assign(&given(members, "members"), members + count);
  return reduce.group;
}

slip::Algorithm algorithm_of(std::string_view name) {
  using enum slip::Algorithm;
  for (const slip::Algorithm a : {automatic, one_shot, two_shot, hierarchical, nccl}) {
    if (name == to_string(a)) return a;
  }
  throw slip::Error(slip::Code::invalid_argument,
                    fmt::format("algorithm is '{}'; allowed are automatic, one-shot, two-shot, "
                                "hierarchical, nccl",
                                name));
}

}  // namespace

void slip_partial_all_reduce_options_init(slip_partial_all_reduce_options* options, size_t size) {
  slip::c_api::write({.size = size, .algorithm = "automatic", .in_place = 0, .bf16 = 0}, options,
                     size);
}

slip_status slip_partial_all_reduce_create(slip_world* world, const char* name, size_t count,
                                           slip_dtype dtype,
                                           const slip_partial_all_reduce_options* options,
                                           slip_partial_all_reduce** reduce) {
  return guarded([&] {
    given(reduce, "reduce") = nullptr;
    const slip_partial_all_reduce_options o = slip::c_api::read(
        options, slip_partial_all_reduce_options_init, "slip_partial_all_reduce_options");
    slip::PartialAllReduceOptions more;
    more.in_place = o.in_place != 0;
    more.wire = o.bf16 != 0 ? slip::Wire::bf16 : slip::Wire::exact;
    more.algorithm = algorithm_of(slip::c_api::text_or(o.algorithm, "automatic"));
    const slip::Dtype type = slip::c_api::dtype_of(dtype);
    *reduce =
        new slip_partial_all_reduce{slip::PartialAllReduce(*given(world, "world").world,
                                                           &given(name, "name"), count, type, more),
                                    count,
                                    type,
                                    {}};
  });
}

void slip_partial_all_reduce_free(slip_partial_all_reduce* reduce) { delete reduce; }

void* slip_partial_all_reduce_buffer(const slip_partial_all_reduce* reduce) {
  return reduce != nullptr ? reduce->reduce.buffer().data : nullptr;
}

slip_status slip_partial_all_reduce_announce(slip_partial_all_reduce* reduce, uint64_t sequence,
                                             const int* members, size_t count) {
  return guarded([&] {
    slip_partial_all_reduce& r = given(reduce, "reduce");
    return r.reduce.announce(group_of(r, sequence, members, count));
  });
}

slip_status slip_partial_all_reduce_mean(slip_partial_all_reduce* reduce, uint64_t sequence,
                                         const int* members, size_t count, void* vector) {
  return guarded([&] {
    slip_partial_all_reduce& r = given(reduce, "reduce");
    const slip::Group& group = group_of(r, sequence, members, count);
    return vector != nullptr ? r.reduce.mean(group, {vector, r.count, r.dtype})
                             : r.reduce.mean(group);
  });
}
