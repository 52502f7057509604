#include <fmt/format.h>

#include <cstring>

#include "slipstream/collectives/partial_all_reduce_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip::partial_all_reduce {

OneShot::OneShot(Windows& windows, const Layout& layout)
    : windows_(windows),
      layout_(layout),
      inputs_(static_cast<std::size_t>(layout.workers)),
      weights_(static_cast<std::size_t>(layout.workers)) {}

Status OneShot::send(const Peer& peer, std::size_t at, VectorView vector, Word word) const {
  if (!peer.mapped() || layout_.device != gpu::host) {
    return windows_.world().transport().put_signal(peer.region, at, vector.data, vector.bytes(),
                                                   at + layout_.word_offset, word);
  }
  if (vector.count > 0) std::memcpy(peer.region.memory.get() + at, vector.data, vector.bytes());
  peer.region.signal_mapped(at + layout_.word_offset, word);
  return {};
}

Status OneShot::mean(const Operation& operation, VectorView vector) {
  const World& world = windows_.world();
  const Iteration sent = progress(operation.sequence, 0);
  const Word word = make_word(world.incarnation(), sent);
  for (const auto& [peer, place] : operation.others) {
    const std::size_t lane = layout_.lane(world.rank(), peer->rank, peer->exchanges % 2);
    if (Status s = send(*peer, lane, vector, word); !s) return s;
  }
  for (const auto& [peer, place] : operation.others) {
    const std::size_t lane = layout_.lane(peer->rank, world.rank(), peer->exchanges++ % 2);
    const auto came = [&] { return windows_.region().word(lane + layout_.word_offset); };
    if (Status s = windows_.await(*peer, [&] { return reached(came(), sent); }); !s) return s;
    if (Status s = windows_.check_sequence(*peer, came(), operation.sequence); !s) return s;
    if (Status s = windows_.await_local_completion(*peer); !s) return s;
    inputs_[place] = layout_.view(windows_.region().data() + lane, vector.count);
  }
  inputs_[operation.place] = vector;
  const std::size_t n = operation.size();
  std::fill_n(weights_.begin(), n, 1.0 / static_cast<double>(n));
  kernels::weighted_average(vector, {inputs_.data(), n}, {weights_.data(), n});
  world.counters().bytes_sent.add(operation.others.size() * vector.bytes());
  return {};
}

}  // namespace slip::partial_all_reduce
